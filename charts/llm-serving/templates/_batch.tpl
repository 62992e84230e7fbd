{{- /* Renders the application that has files and batches; all but where they are kept changes in place.
Scope: the root. */ -}}
{{- define "llm-serving.batchApplication" -}}
{{- $batch := .Values.batch -}}
- name: batch
  route_prefix: /internal/batch
  import_path: serve_apps.batch.app:build_app
  args:
    gatewayUrl: http://127.0.0.1:{{ int .Values.gateway.port }}
    modelTimeoutS: {{ .Values.gateway.firstByteTimeoutS | default 900 }}
    storage: {{ include "llm-serving.batchStorage" . }}
    {{- with include "llm-serving.gatewayRedis" . }}
    redis: {{ . }}
    {{- end }}
    # Where the gateway and the claim are, as for the replicas.
    labelSelector: {llm-serving/role: pipelines}
  deployments:
  - name: Batch
    {{- $replicas := dict "min" $batch.replicas "max" $batch.replicas }}
    {{- include "llm-serving.pipelinesSizing" (merge (dict "replicas" $replicas "autoscaling" dict) (omit .Values.pipelines "replicas" "autoscaling")) | nindent 4 }}
    user_config: {{- omit $batch "enabled" "storage" "replicas" "jobs" | toYaml | nindent 6 }}
{{- end -}}

{{- /* Renders where the application finds what is kept: a claim is a folder to it. Scope: the root. */ -}}
{{- define "llm-serving.batchStorage" -}}
{{- $storage := .Values.batch.storage }}
{{- if hasPrefix "pvc://" $storage -}}
file:///mnt/batch{{ with trimPrefix "pvc://" $storage | splitList "/" | rest | join "/" | trimSuffix "/" }}/{{ . }}{{ end }}
{{- else -}}
{{ $storage }}
{{- end }}
{{- end -}}

{{- /* Renders the name of the claim that batches are kept on, or nothing. Scope: the root. */ -}}
{{- define "llm-serving.batchClaim" -}}
{{- if and .Values.batch.enabled (hasPrefix "pvc://" .Values.batch.storage) }}
{{- trimPrefix "pvc://" .Values.batch.storage | splitList "/" | first }}
{{- end }}
{{- end -}}
