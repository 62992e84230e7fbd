{{- /* Renders serveConfigV2: what Ray Serve runs, one application per model, the gateway at `/`, the RAG pipelines, the
agents and the batches. Scope: the root. */ -}}
{{- define "llm-serving.serveConfig" -}}
{{- $models := include "llm-serving.models" . | fromJson }}
{{- $pipelines := include "llm-serving.pipelines" . | fromJson }}
{{- $agents := include "llm-serving.agents" . | fromJson -}}
proxy_location: EveryNode
http_options:
  host: {{ .Values.gateway.host }}
  port: {{ int .Values.gateway.port }}
logging_config:
  encoding: JSON
  log_level: INFO
  enable_access_log: false
applications:
{{ include "llm-serving.gatewayApplication" . }}
{{- range $name, $model := $models }}
{{ include "llm-serving.modelApplication" (dict "name" $name "model" $model) }}
{{- end }}
{{- if $pipelines }}
{{ include "llm-serving.ragApplication" (dict "root" . "pipelines" $pipelines) }}
{{- end }}
{{- if $agents }}
{{ include "llm-serving.agentApplication" (dict "root" . "agents" $agents) }}
{{- end }}
{{- if .Values.batch.enabled }}
{{ include "llm-serving.batchApplication" . }}
{{- end }}
{{- end -}}

{{- /* Renders the gateway's application. Its arguments are `gateway:` less what the chart itself reads; its routing
table changes in place. Scope: the root. */ -}}
{{- define "llm-serving.gatewayApplication" -}}
{{- $gateway := .Values.gateway }}
{{- $args := omit $gateway "port" "host" "replicas" "autoscaling" "cpus" "drainSeconds" }}
{{- /* Serve's limit lies above the gateway's own, so that the gateway refuses first, in OpenAI's shape, and so that the
pipelines' calls have room; serve_apps.gateway.app.HEADROOM is the same. */}}
{{- $headroom := 128 -}}
- name: gateway
  route_prefix: /
  import_path: serve_apps.gateway.app:build_app
  {{- with include "llm-serving.tracingEnvironment" (dict "root" . "service" "gateway") | fromYaml }}
  runtime_env:
    env_vars: {{- toYaml . | nindent 6 }}
  {{- end }}
  args:
    auth: {{ .Values.security.auth }}
    {{- with include "llm-serving.withoutNulls" (.Values.security.jwt | default dict) | fromJson }}
    jwt: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with include "llm-serving.gatewayRedis" . }}
    redis: {{ . }}
    {{- end }}
    {{- omit $args "sharesRedis" "redisDatabase" "routes" "tenants" "otherTenants" | include "llm-serving.withoutNulls" | fromJson | toYaml | nindent 4 }}
  deployments:
  - name: Gateway
    {{- include "llm-serving.pipelinesPlacement" $gateway | nindent 4 }}
    {{- include "llm-serving.limits" (dict
          "autoscalingConfig" (include "llm-serving.gatewayAutoscaling" . | fromJson)
          "maxOngoingRequests" (add $gateway.maxConcurrentRequests $headroom)
          "maxQueuedRequests" $headroom
          "drainSeconds" $gateway.drainSeconds
        ) | nindent 4 }}
    max_surge_percent: 100
    user_config: {{- include "llm-serving.routingTable" . | nindent 6 }}
{{- end -}}

{{- /* Renders one model's application. What Serve applies in place stands under `deployments`; `args` restart its
replicas. `label_selector` has Serve build the application, too, on a node that has vLLM; the replica's place is decided
by its placement group. LLMRouter may not carry one: Serve wants it on every node with a proxy.
Scope: dict "name" (the model's) "model" (of llm-serving.models). */ -}}
{{- define "llm-serving.modelApplication" -}}
{{- $model := .model }}
{{- $isRanked := gt (int $model.parallelism.data) 1 }}
{{- $parallelism := merge (dict) $model.parallelism }}
{{- with $model.prefill }}{{ $_ := set $parallelism "prefill" (pick . "engine") }}{{ end }}
{{- $server := empty $model.prefill | ternary "VLLMServer" "DecodeVLLMServer" -}}
- name: {{ .name }}
  route_prefix: /internal/{{ .name }}
  import_path: serve_apps.llm.app:build_app
  {{- with $model.env }}
  runtime_env:
    env_vars: {{- toYaml . | nindent 6 }}
  {{- end }}
  args:
    name: {{ .name }}
    task: {{ $model.task }}
    source: {{ $model.source }}
    accelerator: {{- toYaml $model.accelerator | nindent 6 }}
    {{- if gt (int $model.nodes) 1 }}
    nodes: {{ int $model.nodes }}
    {{- end }}
    {{- if or $isRanked $parallelism.experts $parallelism.prefill }}
    parallelism: {{- toYaml $parallelism | nindent 6 }}
    {{- end }}
    placement:
      {{- /* Workers are filled evenly (llm-serving.validate.parallelism), so PACK tears no stage or rank apart. */}}
      strategy: {{ or $isRanked (gt (int $model.nodes) 1) | ternary "PACK" "STRICT_PACK" }}
      bundles:
      {{- range until (mul $model.accelerator.count $model.nodes | int) }}
      - {CPU: 1{{ if ne $model.accelerator.type "cpu" }}, GPU: 1{{ end }}}
      {{- end }}
      labelSelector: {{- toYaml $model.labelSelector | nindent 8 }}
    {{- with $model.engine }}
    engine: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $model.lora }}
    lora: {{- pick . "maxLoras" "maxCpuLoras" "maxRank" | toYaml | nindent 6 }}
    {{- end }}
    surgePercent: {{ int $model.surgePercent }}
  deployments:
  - name: {{ $isRanked | ternary "DataParallelVLLMServer" $server }}:{{ .name }}
    {{- include "llm-serving.limits" (merge (dict "autoscalingConfig" (include "llm-serving.ranks" $model | fromJson)) $model) | nindent 4 }}
    user_config: {{- include "llm-serving.modelSettings" $model | nindent 6 }}
    ray_actor_options:
      num_cpus: 0
      label_selector: {{- toYaml $model.labelSelector | nindent 8 }}
  {{- with $model.prefill }}
  - name: PDPrefillServer:{{ $.name }}
    {{- /* Who asks it is bounded already: by what those that answer work on. */}}
    {{- include "llm-serving.limits" (merge (dict "maxQueuedRequests" -1 "drainSeconds" $model.drainSeconds) .) | nindent 4 }}
    ray_actor_options:
      num_cpus: 0
      label_selector: {{- toYaml $model.labelSelector | nindent 8 }}
  {{- end }}
{{- end -}}

{{- /* Renders what changes in a model's running replicas, as YAML. Scope: the model (of llm-serving.models). */ -}}
{{- define "llm-serving.modelSettings" -}}
{{- $settings := dict "sampling" .sampling }}
{{- with .lora }}
{{- $named := dict }}
{{- range $name, $adapter := .adapters }}{{ $_ := set $named $name $adapter.source }}{{ end }}
{{- $_ := set $settings "adapters" (dict "named" $named) }}
{{- with .directory }}{{ $_ := set $settings.adapters "directory" . }}{{ end }}
{{- end }}
{{- toYaml $settings }}
{{- end -}}

{{- /* Renders the application that runs the RAG pipelines; the pipelines change in place.
Scope: dict "root" $ "pipelines" (the enabled ones). */ -}}
{{- define "llm-serving.ragApplication" -}}
- name: rag
  route_prefix: /internal/rag
  import_path: serve_apps.rag.app:build_app
  {{- with include "llm-serving.tracingEnvironment" (dict "root" .root "service" "rag") | fromYaml }}
  runtime_env:
    env_vars: {{- toYaml . | nindent 6 }}
  {{- end }}
  args:
    gatewayUrl: http://127.0.0.1:{{ int .root.Values.gateway.port }}
    modelTimeoutS: {{ .root.Values.gateway.firstByteTimeoutS | default 900 }}
  deployments:
  - name: Rag
    {{- include "llm-serving.pipelinesSizing" .root.Values.pipelines | nindent 4 }}
    {{- /* `ingest` is a Job's. */}}
    {{- $served := dict }}
    {{- range $name, $pipeline := .pipelines }}{{ $_ := set $served $name (omit $pipeline "ingest") }}{{ end }}
    user_config:
      pipelines: {{- toYaml $served | nindent 8 }}
  - name: Reading
    {{- include "llm-serving.readingSizing" .root.Values.pipelines | nindent 4 }}
{{- end -}}

{{- /* Renders the application that runs the agents; the agents change in place.
Scope: dict "root" $ "agents" (the enabled ones). */ -}}
{{- define "llm-serving.agentApplication" -}}
- name: agent
  route_prefix: /internal/agent
  import_path: serve_apps.agent.app:build_app
  {{- with include "llm-serving.tracingEnvironment" (dict "root" .root "service" "agent") | fromYaml }}
  runtime_env:
    env_vars: {{- toYaml . | nindent 6 }}
  {{- end }}
  args:
    gatewayUrl: http://127.0.0.1:{{ int .root.Values.gateway.port }}
    modelTimeoutS: {{ .root.Values.gateway.firstByteTimeoutS | default 900 }}
    {{- with include "llm-serving.gatewayRedis" .root }}
    redis: {{ . }}
    {{- end }}
  deployments:
  - name: Agent
    {{- include "llm-serving.pipelinesSizing" .root.Values.pipelines | nindent 4 }}
    user_config:
      agents: {{- toYaml .agents | nindent 8 }}
      {{- with include "llm-serving.prices" .root | fromYaml }}
      prices: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- /* Renders how an application of pipelines, agents or batches is placed, scaled and limited. Scope: `pipelines` of values. */ -}}
{{- define "llm-serving.pipelinesSizing" -}}
{{- include "llm-serving.pipelinesPlacement" . }}
{{- $config := include "llm-serving.autoscalingConfig" (dict
      "replicas" .replicas
      "autoscaling" .autoscaling
      "maxOngoing" .maxOngoingRequests
    ) | fromJson }}
{{ include "llm-serving.limits" (mergeOverwrite (dict "autoscalingConfig" $config) .) }}
max_surge_percent: 100
{{- end -}}

{{- /* Renders how what reads documents is placed and scaled. A replica has as many at a time as serve_apps.rag.reading has
processes; those that wait are bounded by the uploads under way. Scope: `pipelines` of values. */ -}}
{{- define "llm-serving.readingSizing" -}}
{{- include "llm-serving.pipelinesSizing" (merge (dict "maxOngoingRequests" 2 "maxQueuedRequests" -1) .reading (pick . "drainSeconds")) }}
{{- end -}}

{{- /* Renders where and with how much CPU a replica of the gateway or the pipelines runs. Scope: its block of values. */ -}}
{{- define "llm-serving.pipelinesPlacement" -}}
ray_actor_options:
  num_cpus: {{ .cpus }}
  label_selector: {llm-serving/role: pipelines}
{{- end -}}

{{- /* Renders a deployment's scaling, limits and drain. Refusals are 429: the caller should come back, the server is not
broken. Scope: dict "autoscalingConfig" "maxOngoingRequests" "maxQueuedRequests" "drainSeconds". */ -}}
{{- define "llm-serving.limits" -}}
autoscaling_config: {{- toYaml .autoscalingConfig | nindent 2 }}
max_ongoing_requests: {{ int .maxOngoingRequests }}
max_queued_requests: {{ int .maxQueuedRequests }}
backpressure_config: {status_code: 429, retry_after_s: 1}
graceful_shutdown_timeout_s: {{ int .drainSeconds }}
{{- end -}}
