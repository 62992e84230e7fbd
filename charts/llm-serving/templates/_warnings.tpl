{{- /* Renders one [WARNING] line for everything that is allowed and unusual, for NOTES.txt. Scope: the root. */ -}}
{{- define "llm-serving.warnings" -}}
{{- $models := include "llm-serving.models" . | fromYaml }}
{{- if eq .Values.security.auth "none" }}
[WARNING] security.auth is none: everyone who reaches the gateway may use it. For laptops only; set apiKeys.
{{- else if not .Values.security.apiKeys.existingSecret }}
[WARNING] security.apiKeys.existingSecret is empty: the chart made the key `admin`. Note it, then delete the Secret {{ include "llm-serving.initialKeySecret" . }}; the gateway keeps only its hash.
{{- end }}
{{- if not $models }}
[WARNING] models is empty: the gateway answers, and knows no model. Start from a preset in values/.
{{- end }}
{{- range $name, $model := $models }}
{{- if $model.engine.trust_remote_code }}
[WARNING] models.{{ $name }}.engine.trust_remote_code runs code that comes with the weights.
{{- end }}
{{- if and (hasPrefix "hf://" $model.source) (not (contains "@" $model.source)) }}
[WARNING] models.{{ $name }}.source names no revision: replicas may start with different weights. Add @<commit>.
{{- end }}
{{- end }}
{{- range $name, $group := include "llm-serving.workerGroups" . | fromYaml }}
{{- $most := 0 }}
{{- range $model := $models }}
{{- if and (eq $model.group $name) (eq $model.accelerator.type $group.type) }}{{ $most = add $most (mul $model.autoscalingConfig.max_replicas $model.accelerator.count) }}{{ end }}
{{- end }}
{{- $have := mul $group.maxReplicas $group.count | int }}
{{- if gt (int $most) $have }}
[WARNING] workerGroups.{{ $name }}: its models may grow to {{ $most }} x {{ $group.type }}, its workers have {{ $have }} at most. Raise maxReplicas or lower the models' replicas.max.
{{- end }}
{{- end }}
{{- range $name, $pipeline := include "llm-serving.entries" (dict "entries" .Values.rag "overrides" .Values.overrides.rag) | fromYaml }}
{{- if and (hasSuffix ".db" (dig "vectorStore" "uri" "" $pipeline)) (not $.Values.pipelines.dataClaim) }}
[WARNING] rag.{{ $name }}.vectorStore.uri is a file in the pod: its documents go with the pod. Use a Milvus server for what must stay, or set pipelines.dataClaim.
{{- end }}
{{- end }}
{{- end -}}
