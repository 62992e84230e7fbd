{{- /* Renders the accelerators there are, as YAML: what one of them may ask of its node, with room left for the system,
and its own memory in 10^9 bytes.
`cpu` and Ray's names for GPUs; serve_apps.llm.config.AcceleratorType lists the same. Scope: none. */ -}}
{{- define "llm-serving.accelerators" -}}
cpu: {cpu: 1, memoryGi: 4}
T4: {cpu: 3, memoryGi: 12, gpuGb: 16}             # g4dn
L4: {cpu: 3, memoryGi: 12, gpuGb: 24}             # g6
L40S: {cpu: 3, memoryGi: 24, gpuGb: 48}           # g6e
A10G: {cpu: 3, memoryGi: 12, gpuGb: 24}           # g5
A100-40G: {cpu: 11, memoryGi: 120, gpuGb: 40}     # p4d
A100-80G: {cpu: 11, memoryGi: 120, gpuGb: 80}     # p4de
H100: {cpu: 22, memoryGi: 220, gpuGb: 80}         # p5
H200: {cpu: 22, memoryGi: 220, gpuGb: 141}        # p5e, p5en
B200: {cpu: 22, memoryGi: 220, gpuGb: 180}        # p6-b200
B300: {cpu: 22, memoryGi: 400, gpuGb: 270}        # p6-b300
GB200: {cpu: 30, memoryGi: 200, gpuGb: 186}       # p6e-gb200
GB300: {cpu: 30, memoryGi: 200, gpuGb: 279}       # p6e-gb300
{{- end -}}

{{- /* Renders the enabled entries of a collection, overrides applied and nulls dropped, as JSON.
Scope: dict "entries" (the map) "overrides" (its overrides). */ -}}
{{- define "llm-serving.entries" -}}
{{- $entries := dict }}
{{- range $name, $entry := .entries }}
{{- if kindIs "map" $entry }}
{{- $entry = mergeOverwrite (dict) $entry }}
{{- range $key, $value := dig $name dict ($.overrides | default dict) }}
{{- $_ := set $entry $key $value }}
{{- end }}
{{- $entry = include "llm-serving.withoutNulls" $entry | fromJson }}
{{- if dig "enabled" true $entry }}{{ $_ := set $entries $name (omit $entry "enabled") }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $entries }}
{{- end -}}

{{- /* Renders the enabled RAG pipelines, as JSON. Scope: the root. */ -}}
{{- define "llm-serving.pipelines" -}}
{{- include "llm-serving.once" (dict "root" . "key" "pipelines" "define" "llm-serving.enabledPipelines" "scope" .) }}
{{- end -}}

{{- /* Works out what the define above renders. Scope: the root. */ -}}
{{- define "llm-serving.enabledPipelines" -}}
{{- $pipelines := include "llm-serving.entries" (dict "entries" .Values.rag "overrides" .Values.overrides.rag) | fromJson }}
{{- $milvus := include "llm-serving.milvusConnection" . | fromYaml }}
{{- range $pipelines }}
{{- if not (dig "vectorStore" "uri" "" .) }}{{ $_ := set . "vectorStore" (merge (.vectorStore | default dict) $milvus) }}{{ end }}
{{- end }}
{{- toJson $pipelines }}
{{- end -}}

{{- /* Renders the enabled agents, as JSON. Scope: the root. */ -}}
{{- define "llm-serving.agents" -}}
{{- include "llm-serving.entries" (dict "entries" .Values.agent "overrides" .Values.overrides.agent) }}
{{- end -}}

{{- /* Renders Ray Serve's autoscaling_config from the short form and Ray's own keys. The default target leaves a quarter
of a replica's room for what arrives while another one starts.
Scope: dict "replicas" (min, max) "autoscaling" (Ray's keys) "maxOngoing" (requests of a replica). */ -}}
{{- define "llm-serving.autoscalingConfig" -}}
{{- $replicas := include "llm-serving.withoutNulls" (.replicas | default dict) | fromJson }}
{{- $autoscaling := include "llm-serving.withoutNulls" (.autoscaling | default dict) | fromJson }}
{{- $min := dig "min_replicas" (dig "min" 1 $replicas) $autoscaling }}
{{- $max := dig "max_replicas" (dig "max" (max 1 $min) $replicas) $autoscaling }}
{{- $target := mulf 0.75 .maxOngoing | floor | int | max 1 }}
{{- $defaults := dict "target_ongoing_requests" $target }}
{{- toJson (mergeOverwrite $defaults $autoscaling (dict "min_replicas" $min "max_replicas" $max)) }}
{{- end -}}

{{- /* Renders where a model runs: ray, standalone (a Deployment of the chart's) or elsewhere. Scope: its entry. */ -}}
{{- define "llm-serving.home" -}}
{{- $runtime := .runtime | default "ray" }}
{{- or (eq $runtime "external") (and (eq $runtime "standalone") (not (empty .url))) | ternary "elsewhere" $runtime }}
{{- end -}}

{{- /* Renders the enabled models that the chart does not run (`runtime` external, or standalone with a `url`), as JSON.
Scope: the root. */ -}}
{{- define "llm-serving.elsewhere" -}}
{{- $models := dict }}
{{- range $name, $entry := include "llm-serving.entries" (dict "entries" .Values.models "overrides" .Values.overrides.models) | fromJson }}
{{- if eq (include "llm-serving.home" $entry) "elsewhere" }}
{{- $_ := set $models $name (mergeOverwrite (dict "task" "generate" "url" "") $entry) }}
{{- end }}
{{- end }}
{{- toJson $models }}
{{- end -}}

{{- /* Renders the enabled models that Ray runs, as JSON; see llm-serving.modelsAt. Scope: the root. */ -}}
{{- define "llm-serving.models" -}}
{{- include "llm-serving.once" (dict "root" . "key" "models" "define" "llm-serving.modelsAt" "scope" (dict "root" . "home" "ray")) }}
{{- end -}}

{{- /* Renders the enabled models that are Deployments of the chart's, as JSON; see llm-serving.modelsAt.
Scope: the root. */ -}}
{{- define "llm-serving.standalone" -}}
{{- include "llm-serving.once" (dict "root" . "key" "standalone" "define" "llm-serving.modelsAt" "scope" (dict "root" . "home" "standalone")) }}
{{- end -}}

{{- /* Renders the enabled models of one home with every default filled in, as JSON. `group` is the worker group ("" if
none fits), `labelSelector` leads to its nodes, `devices` are the accelerators of one replica on all of its nodes, and
`accelerators` those of all its replicas, `least` and `most`. `prefill` are the replicas that read prompts, if there are
such: parallelism.prefill with every default.
Scope: dict "root" $ "home" (of llm-serving.home). */ -}}
{{- define "llm-serving.modelsAt" -}}
{{- $root := .root }}
{{- $home := .home }}
{{- $here := dict }}
{{- range $name, $entry := include "llm-serving.entries" (dict "entries" $root.Values.models "overrides" $root.Values.overrides.models) | fromJson }}
{{- if eq (include "llm-serving.home" $entry) $home }}{{ $_ := set $here $name $entry }}{{ end }}
{{- end }}
{{- $groups := dict }}
{{- if $here }}{{ $groups = include "llm-serving.workerGroups" $root | fromJson }}{{ end }}
{{- $models := dict }}
{{- range $name, $entry := $here }}
{{- $model := mergeOverwrite (dict
      "task" "generate"
      "source" ""
      "maxOngoingRequests" 64
      "maxQueuedRequests" 64
      "drainSeconds" (eq $home "ray" | ternary (min 120 $root.Values.maxDrainSeconds) $root.Values.maxDrainSeconds)
      "surgePercent" 100
      "nodes" 1
      "sampling" dict
      "engine" dict
      "lora" dict
      "env" dict
    ) $entry }}
{{- range $block := list "sampling" "engine" }}
{{- $_ := set $model $block (include "llm-serving.withoutNulls" (get $model $block) | fromJson) }}
{{- end }}
{{- with include "llm-serving.tracesUrl" $root }}
{{- $environment := include "llm-serving.tracingEnvironment" (dict "root" $root "service" $name) | fromYaml }}
{{- $_ := set $model "env" (mergeOverwrite $environment $model.env) }}
{{- $_ := set $model.engine "extra" (mergeOverwrite (dict "otlp_traces_endpoint" .) (dig "extra" dict $model.engine)) }}
{{- end }}
{{- with include "llm-serving.withoutNulls" ($model.lora | default dict) | fromJson }}
{{- $lora := mergeOverwrite (dict "maxLoras" 4 "maxRank" 16) . }}
{{- $_ := set $lora "adapters" (include "llm-serving.entries" (dict "entries" .adapters) | fromJson) }}
{{- $_ := set $model "lora" $lora }}
{{- end }}
{{- $accelerator := mergeOverwrite (dict "type" "" "count" 1) (include "llm-serving.withoutNulls" ($model.accelerator | default dict) | fromJson) }}
{{- $_ := set $model "accelerator" $accelerator }}
{{- $parallelism := mergeOverwrite (dict "data" 1 "experts" false) (include "llm-serving.withoutNulls" ($model.parallelism | default dict) | fromJson) }}
{{- $_ := set $model "parallelism" (omit $parallelism "prefill") }}
{{- $_ := set $model "devices" (mul $accelerator.count $model.nodes $parallelism.data) }}
{{- $_ := set $model "autoscalingConfig" (include "llm-serving.autoscalingConfig" (dict
      "replicas" $model.replicas
      "autoscaling" $model.autoscaling
      "maxOngoing" $model.maxOngoingRequests
    ) | fromJson) }}
{{- $_ := set $model "prefill" (include "llm-serving.prefill" (dict "model" $model "prefill" $parallelism.prefill) | fromYaml) }}
{{- $accelerators := dict }}
{{- range $bound, $key := dict "least" "min_replicas" "most" "max_replicas" }}
{{- $replicas := add (get $model.autoscalingConfig $key) (dig "autoscalingConfig" $key 0 $model.prefill) }}
{{- $_ := set $accelerators $bound (mul $replicas $model.devices) }}
{{- end }}
{{- $_ := set $model "accelerators" $accelerators }}
{{- $group := $model.workerGroup | default (include "llm-serving.fittingGroup" (dict "groups" $groups "model" $model)) }}
{{- $_ := set $model "group" $group }}
{{- $selector := dict "llm-serving/accelerator" (dig $group "profile" "" $groups) }}
{{- if $model.workerGroup }}{{ $_ := set $selector "llm-serving/worker-group" $group }}{{ end }}
{{- $_ := set $model "labelSelector" $selector }}
{{- $_ := set $models $name $model }}
{{- end }}
{{- toJson $models }}
{{- end -}}

{{- /* Renders the folder, below /mnt/models, that an image is mounted at, which names its volume, too: a reference has
colons, and no mount may. serve_apps.llm.sources has the same rule. Scope: the reference. */ -}}
{{- define "llm-serving.imageFolder" -}}
image-{{ sha256sum . | trunc 10 }}
{{- end -}}

{{- /* Renders what a pod has to mount for a source, as YAML: `name`, the `key` of a worker group that lists it, `what` it is
and the `location` that is loaded; nothing for sources that are fetched. Scope: the source. */ -}}
{{- define "llm-serving.mounted" -}}
{{- if hasPrefix "pvc://" . }}
{{- $path := trimPrefix "pvc://" . }}
{{- dict "key" "modelClaims" "what" "claim" "name" (splitList "/" $path | first) "location" (printf "/mnt/models/%s" $path) | toYaml }}
{{- else if hasPrefix "oci://" . }}
{{- $parts := trimPrefix "oci://" . | splitList "#" }}
{{- $location := concat (list "/mnt/models" (include "llm-serving.imageFolder" (first $parts))) (rest $parts) | join "/" }}
{{- dict "key" "modelImages" "what" "image" "name" (first $parts) "location" $location | toYaml }}
{{- end }}
{{- end -}}

{{- /* Renders the paths of the values that have pods mount images, as YAML. Scope: the root. */ -}}
{{- define "llm-serving.imageVolumes" -}}
{{- range $name, $group := include "llm-serving.workerGroups" . | fromJson }}
{{- if $group.modelImages }}
- workerGroups.{{ $name }}.modelImages
{{- end }}
{{- end }}
{{- range $name, $model := include "llm-serving.standalone" . | fromJson }}
{{- if hasPrefix "oci://" $model.source }}
- models.{{ $name }}.source
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders a model's replicas that read prompts with every default filled in, as YAML; nothing if it has none.
Scope: dict "model" (with maxOngoingRequests) "prefill" (of its parallelism). */ -}}
{{- define "llm-serving.prefill" -}}
{{- if kindIs "map" .prefill }}
{{- $prefill := include "llm-serving.withoutNulls" .prefill | fromJson }}
{{- $prefill = mergeOverwrite (dict "engine" dict "maxOngoingRequests" .model.maxOngoingRequests) $prefill }}
{{- $_ := set $prefill "engine" (include "llm-serving.withoutNulls" $prefill.engine | fromJson) }}
{{- $_ := set $prefill "autoscalingConfig" (include "llm-serving.autoscalingConfig" (dict
      "replicas" $prefill.replicas
      "autoscaling" $prefill.autoscaling
      "maxOngoing" $prefill.maxOngoingRequests
    ) | fromJson) }}
{{- toYaml $prefill }}
{{- end }}
{{- end -}}

{{- /* Renders a model's autoscaling_config as Serve counts, to whom each data parallel rank is a replica.
Scope: the model. */ -}}
{{- define "llm-serving.ranks" -}}
{{- $config := deepCopy .autoscalingConfig }}
{{- range $key := list "initial_replicas" "max_replicas" "min_replicas" }}
{{- if hasKey $config $key }}{{ $_ := set $config $key (mul (get $config $key) $.parallelism.data) }}{{ end }}
{{- end }}
{{- toJson $config }}
{{- end -}}

{{- /* Renders the name of the smallest group that fits a model, or nothing; of alike ones, which share their models, the
one with the lowest order. It fits if a whole number of replicas fills the worker, which is also what tensor parallelism
over its GPUs needs; one of several nodes fills a worker on each.
Scope: dict "groups" (of llm-serving.workerGroups) "model" (with accelerator and nodes). */ -}}
{{- define "llm-serving.fittingGroup" -}}
{{- $best := dict }}
{{- $count := int .model.accelerator.count }}
{{- range $name, $group := .groups }}
{{- if and $group.type (eq $group.type $.model.accelerator.type) (eq 0 (mod $group.count $count | int)) (or (eq 1 (int $.model.nodes)) (eq (int $group.count) $count)) }}
{{- $size := list (int $group.count) (int $group.order) }}
{{- if or (not $best) (lt (first $size) (first $best.size)) (and (eq (first $size) (first $best.size)) (lt (last $size) (last $best.size))) }}
{{- $best = dict "name" $name "size" $size }}
{{- end }}
{{- end }}
{{- end }}
{{- $best.name }}
{{- end -}}

{{- /* Renders how many workers of each group its models fill, `least` and `most`, as YAML. Groups with like workers
share the models that name no group: what finds no room in the first is counted for the next.
Scope: dict "models" (of llm-serving.models) "groups" (of llm-serving.workerGroups). */ -}}
{{- define "llm-serving.filledWorkers" -}}
{{- $beyond := dict }}
{{- range $name := include "llm-serving.groupOrder" .groups | fromYamlArray }}
{{- $group := get $.groups $name }}
{{ $name }}:
{{- range $bound := list "least" "most" }}
{{- $key := printf "%s/%s" $bound $group.profile }}
{{- $accelerators := 0 }}
{{- range $.models }}
{{- if eq .group $name }}{{ $accelerators = add $accelerators (get .accelerators $bound) }}{{ end }}
{{- end }}
{{- $workers := divf $accelerators (max 1 $group.count) | ceil | int | add (get $beyond $key | default 0) }}
{{- $_ := set $beyond $key (sub $workers $group.maxReplicas | max 0) }}
  {{ $bound }}: {{ min $workers $group.maxReplicas }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders the GPUs or cores that a model of a group may have: the group's, and those of groups with like workers
unless one of its models names the group. Scope: dict "name" (the group's) "models" "groups". */ -}}
{{- define "llm-serving.sharedAccelerators" -}}
{{- $own := get .groups .name }}
{{- $pinned := false }}
{{- range .models }}{{ if eq (.workerGroup | default "") $.name }}{{ $pinned = true }}{{ end }}{{ end }}
{{- $sum := 0 }}
{{- range $name, $group := .groups }}
{{- if or (eq $name $.name) (and $own.profile (eq $group.profile $own.profile) (not $pinned)) }}
{{- $sum = add $sum (mul $group.maxReplicas $group.count) }}
{{- end }}
{{- end }}
{{- $sum }}
{{- end -}}
