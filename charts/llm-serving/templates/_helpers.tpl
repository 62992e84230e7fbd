{{- /* Renders the name every object starts with; _validate.tpl refuses one that is too long or no DNS label, so it is
never cut. Scope: the root. */ -}}
{{- define "llm-serving.fullname" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains $chart .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-{{ $chart }}
{{- end -}}
{{- end -}}

{{- /* Renders the name of the Service KubeRay makes for the applications. Scope: the root. */ -}}
{{- define "llm-serving.serveServiceName" -}}
{{ include "llm-serving.fullname" . }}-serve-svc
{{- end -}}

{{- /* Renders the labels of an object of the chart. Never for pod templates: the version would roll the RayCluster at
every upgrade. Scope: the root. */ -}}
{{- define "llm-serving.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Renders an image reference. Scope: dict "root" $ "name" (serve, vllm or vllmCpu). */ -}}
{{- define "llm-serving.image" -}}
{{- $default := eq .name "vllmCpu" | ternary (printf "%s-cpu" .root.Chart.AppVersion) .root.Chart.AppVersion -}}
{{- $tag := (index .root.Values.image .name).tag | default $default -}}
{{ include "llm-serving.imageOf" (dict "root" .root "name" .name "tag" $tag) }}
{{- end -}}

{{- /* Renders the reference of an image of some tag. Scope: dict "root" $ "name" (as llm-serving.image) "tag". */ -}}
{{- define "llm-serving.imageOf" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end -}}
{{ (index .root.Values.image .name).repository }}:{{ .tag }}
{{- end -}}

{{- /* Renders the name of the workers' ServiceAccount. Scope: the root. */ -}}
{{- define "llm-serving.serviceAccountName" -}}
{{- $default := .Values.serviceAccount.create | ternary (include "llm-serving.fullname" .) "default" -}}
{{ .Values.serviceAccount.name | default $default }}
{{- end -}}

{{- /* Renders the name of everything that belongs to the Redis of the release. Scope: the root. */ -}}
{{- define "llm-serving.redisName" -}}
{{ include "llm-serving.fullname" . }}-redis
{{- end -}}

{{- /* Renders the address of the Redis and the Secret that opens it ("" for none), as YAML; nothing without Redis.
Scope: the root. */ -}}
{{- define "llm-serving.redisConnection" -}}
{{- $redis := .Values.redis }}
{{- $name := include "llm-serving.redisName" . }}
{{- if $redis.enabled }}
{{- dict "address" (printf "%s:6379" $name) "secret" $name | toYaml }}
{{- else if $redis.address }}
{{- dict "address" $redis.address "secret" (include "llm-serving.redisPasswordSecret" .) | toYaml }}
{{- end }}
{{- end -}}

{{- /* Renders the name of everything that belongs to the Milvus of the release. Scope: the root. */ -}}
{{- define "llm-serving.milvusName" -}}
{{ include "llm-serving.fullname" . }}-milvus
{{- end -}}

{{- /* Renders what a pipeline's vectorStore says of the Milvus of `milvus`, as YAML: `uri`, and `credential` where it asks
for one; nothing without Milvus. Scope: the root. */ -}}
{{- define "llm-serving.milvusConnection" -}}
{{- $milvus := .Values.milvus }}
{{- if $milvus.enabled }}
{{- dict "uri" (printf "http://%s:19530" (include "llm-serving.milvusName" .)) "credential" "token" | toYaml }}
{{- else if and $milvus.uri (or $milvus.existingSecret $milvus.externalKey) }}
{{- dict "uri" $milvus.uri "credential" "token" | toYaml }}
{{- else if $milvus.uri }}
{{- dict "uri" $milvus.uri | toYaml }}
{{- end }}
{{- end -}}

{{- /* Renders the seconds that `helm test` may take: a model that starts from nothing, and some for the answers.
Scope: the root. */ -}}
{{- define "llm-serving.testSeconds" -}}
{{ add (int .Values.gateway.firstByteTimeoutS) 300 }}
{{- end -}}

{{- /* Renders what another define renders: worked out where it is asked for first, and kept for the rest of the render,
as what many templates ask for takes long. Scope: dict "root" $ "key" (of what is kept) "define" (the other's name) "scope"
(the other's). */ -}}
{{- define "llm-serving.once" -}}
{{- $kept := get .root "llm-serving.once" | default dict }}
{{- if not (hasKey $kept .key) }}
{{- $_ := set $kept .key (include .define .scope) }}
{{- $_ := set .root "llm-serving.once" $kept }}
{{- end }}
{{- get $kept .key }}
{{- end -}}

{{- /* Renders a map without its null entries, as JSON. Scope: the map. */ -}}
{{- define "llm-serving.withoutNulls" -}}
{{- $kept := dict }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $kept $key $value }}{{ end }}
{{- end }}
{{- toJson $kept }}
{{- end -}}

{{- /* Renders `base` with `over` laid over it, as JSON: maps merge, list items with a name merge onto the item of that
name, other items are appended, null removes. Scope: dict "base" (a map) "over" (a map). */ -}}
{{- define "llm-serving.overlay" -}}
{{- $merged := deepCopy .base }}
{{- range $key, $over := .over }}
{{- $base := get $merged $key }}
{{- if kindIs "invalid" $over }}
{{- $_ := unset $merged $key }}
{{- else if and (kindIs "map" $over) (kindIs "map" $base) }}
{{- $_ := set $merged $key (include "llm-serving.overlay" (dict "base" $base "over" $over) | fromJson) }}
{{- else if and (kindIs "slice" $over) (kindIs "slice" $base) }}
{{- $_ := set $merged $key (include "llm-serving.overlayList" (dict "base" $base "over" $over) | fromJsonArray) }}
{{- else }}
{{- $_ := set $merged $key $over }}
{{- end }}
{{- end }}
{{- toJson $merged }}
{{- end -}}

{{- /* Renders the list `base` with the items of `over` merged onto it by name, else appended, as JSON.
Scope: dict "base" (a list) "over" (a list). */ -}}
{{- define "llm-serving.overlayList" -}}
{{- $items := .base }}
{{- range $over := .over }}
{{- $name := kindIs "map" $over | ternary (get (kindIs "map" $over | ternary $over dict) "name") "" }}
{{- $merged := list }}
{{- $found := false }}
{{- range $base := $items }}
{{- if and $name (kindIs "map" $base) (eq $name (get $base "name")) }}
{{- $found = true }}
{{- $base = include "llm-serving.overlay" (dict "base" $base "over" $over) | fromJson }}
{{- end }}
{{- $merged = append $merged $base }}
{{- end }}
{{- $items = $found | ternary $merged (append $items $over) }}
{{- end }}
{{- toJson $items }}
{{- end -}}

{{- /* Renders 192 random bits as hex digits. Scope: none. */ -}}
{{- define "llm-serving.randomHex" -}}
{{ randBytes 24 | b64dec | printf "%x" }}
{{- end -}}
