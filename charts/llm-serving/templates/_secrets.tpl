{{- /* Renders the name of a Secret: the one that exists, else the release's own, which the chart or the External Secrets
Operator makes. Scope: dict "root" $ "block" (existingSecret, externalKey) "suffix" (of the release's own). */ -}}
{{- define "llm-serving.secretName" -}}
{{ .block.existingSecret | default (printf "%s-%s" (include "llm-serving.fullname" .root) .suffix) }}
{{- end -}}

{{- /* Renders the name of a Secret that need not be, or nothing. Scope: as llm-serving.secretName. */ -}}
{{- define "llm-serving.optionalSecretName" -}}
{{- if or .block.existingSecret .block.externalKey }}{{ include "llm-serving.secretName" . }}{{ end }}
{{- end -}}

{{- /* Renders the name of the Secret with the API keys. Scope: the root. */ -}}
{{- define "llm-serving.apiKeysSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.security.apiKeys "suffix" "api-keys") }}
{{- end -}}

{{- /* Renders the name of the Secret with the key made at the first install. Scope: the root. */ -}}
{{- define "llm-serving.initialKeySecret" -}}
{{ include "llm-serving.fullname" . }}-initial-key
{{- end -}}

{{- /* Renders the name of the Secret with the applications' credential. Scope: the root. */ -}}
{{- define "llm-serving.internalSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.security.internal "suffix" "internal") }}
{{- end -}}

{{- /* Renders the name of the Secret with the token for Ray's own interfaces. Scope: the root. */ -}}
{{- define "llm-serving.rayTokenSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.security.ray "suffix" "ray-token") }}
{{- end -}}

{{- /* Renders the name of the Secret with the API keys of external models. Scope: the root. */ -}}
{{- define "llm-serving.upstreamsSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.security.upstreams "suffix" "upstreams") }}
{{- end -}}

{{- /* Renders the name of the Secret with the credentials of agents' tools. Scope: the root. */ -}}
{{- define "llm-serving.toolsSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.security.tools "suffix" "tools") }}
{{- end -}}

{{- /* Renders the name of the Secret with the token for gated models, or nothing. Scope: the root. */ -}}
{{- define "llm-serving.huggingFaceSecret" -}}
{{- include "llm-serving.optionalSecretName" (dict "root" . "block" .Values.security.huggingFace "suffix" "hugging-face") }}
{{- end -}}

{{- /* Renders the name of the Secret with the password of a Redis elsewhere, or nothing. Scope: the root. */ -}}
{{- define "llm-serving.redisPasswordSecret" -}}
{{- include "llm-serving.optionalSecretName" (dict "root" . "block" .Values.redis "suffix" "redis-password") }}
{{- end -}}

{{- /* Renders the name of the Secret with what opens Milvus. Scope: the root. */ -}}
{{- define "llm-serving.milvusSecret" -}}
{{- include "llm-serving.secretName" (dict "root" . "block" .Values.milvus "suffix" "milvus") }}
{{- end -}}

{{- /* Renders what the External Secrets Operator has to fetch, as YAML: the key of each, by the Secret's name.
Scope: the root. */ -}}
{{- define "llm-serving.externalSecrets" -}}
{{- $security := .Values.security }}
{{- $fetched := dict }}
{{- if eq $security.auth "apiKeys" }}{{ $_ := set $fetched (include "llm-serving.apiKeysSecret" .) $security.apiKeys.externalKey }}{{ end }}
{{- $_ := set $fetched (include "llm-serving.internalSecret" .) $security.internal.externalKey }}
{{- $_ := set $fetched (include "llm-serving.upstreamsSecret" .) $security.upstreams.externalKey }}
{{- $_ := set $fetched (include "llm-serving.toolsSecret" .) $security.tools.externalKey }}
{{- $_ := set $fetched (include "llm-serving.huggingFaceSecret" .) $security.huggingFace.externalKey }}
{{- if eq $security.ray.auth "token" }}{{ $_ := set $fetched (include "llm-serving.rayTokenSecret" .) $security.ray.externalKey }}{{ end }}
{{- $_ := set $fetched (include "llm-serving.redisPasswordSecret" .) .Values.redis.externalKey }}
{{- $_ := set $fetched (include "llm-serving.milvusSecret" .) .Values.milvus.externalKey }}
{{- $wanted := dict }}
{{- range $name, $key := $fetched }}{{ if $key }}{{ $_ := set $wanted $name $key }}{{ end }}{{ end }}
{{- toYaml $wanted }}
{{- end -}}
