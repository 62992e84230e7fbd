{{- /* Rules about models, their adapters, and what they run on. Scope of each, unless it says so: that of llm-serving.validate. */ -}}

{{- define "llm-serving.validate.models" -}}
{{- $known := include "llm-serving.accelerators" . | fromYaml }}
{{- $reserved := list "agent" "batch" "gateway" "rag" }}
{{- range $name, $model := .models }}
{{- $path := printf "models.%s" $name }}
{{- $type := $model.accelerator.type }}
{{- if has $name $reserved }}
{{ $path }}: the name belongs to an application of the chart; reserved are: {{ join ", " $reserved }}
{{- end }}
{{- if hasKey $.pipelines $name }}
{{ $path }}: rag.{{ $name }} is published as a model of the same name; rename one
{{- end }}
{{- if hasKey $.agents $name }}
{{ $path }}: agent.{{ $name }} is published as a model of the same name; rename one
{{- end }}
{{- range $key := list "url" "servedModel" "credential" "takesPriority" }}
{{- if hasKey $model $key }}
{{ $path }}.{{ $key }}: belongs to models that run elsewhere; set runtime to external, or to standalone with a url, or leave it out
{{- end }}
{{- end }}
{{- if not $model.source }}
{{ $path }}.source: missing; set hf://org/name[@revision], s3://bucket/path, gs://bucket/path, pvc://claim/path or oci://registry/name:tag[#path]
{{- else }}
{{- include "llm-serving.validate.source" (dict "path" (printf "%s.source" $path) "source" $model.source) }}
{{- end }}
{{- if not $type }}
{{ $path }}.accelerator: missing; set {type: …, count: 1} with a type of: {{ keys $known | sortAlpha | join ", " }}
{{- else if not (hasKey $known $type) }}
{{ $path }}.accelerator.type: {{ $type | quote }} is not defined; one of: {{ keys $known | sortAlpha | join ", " }}
{{- else }}
{{- include "llm-serving.validate.modelGroup" (dict "path" $path "model" $model "groups" $.groups) }}
{{- end }}
{{- include "llm-serving.validate.engine" (dict "path" $path "engine" $model.engine) }}
{{- include "llm-serving.validate.loading" (dict "path" $path "model" $model) }}
{{- include "llm-serving.validate.autoscaling" (dict "path" $path "block" $model "config" $model.autoscalingConfig "maxOngoing" $model.maxOngoingRequests "maxOngoingPath" (printf "%s.maxOngoingRequests" $path)) }}
{{- end }}
{{- end -}}

{{- /* Models that are split over more than the GPUs of one node. ray.serve.llm places each with PACK, which keeps a stage
or a rank on one node only where nothing else leaves part of one free. */ -}}
{{- define "llm-serving.validate.parallelism" -}}
{{- range $name, $model := .models }}
{{- if and $model.parallelism.experts (eq 1 (int $model.devices)) }}
models.{{ $name }}.parallelism.experts: one {{ $model.accelerator.type }} has all experts; set accelerator.count or parallelism.data to more than 1, or leave it out
{{- end }}
{{- end }}
{{- range $name, $model := .onRay }}
{{- $path := printf "models.%s" $name }}
{{- $nodes := int $model.nodes }}
{{- $data := int $model.parallelism.data }}
{{- $count := int $model.accelerator.count }}
{{- if and (gt $nodes 1) (eq $model.accelerator.type "cpu") }}
{{ $path }}.nodes: vLLM keeps to one node on CPUs, got {{ $nodes }}; set 1, or accelerator.type to a GPU
{{- end }}
{{- if and (gt $nodes 1) (gt $data 1) }}
{{ $path }}.parallelism.data: not together with nodes, got {{ $data }} and {{ $nodes }}; set one of the two to 1
{{- end }}
{{- if or (gt $nodes 1) (gt $data 1) }}
{{- range $other, $neighbour := omit $.onRay $name }}
{{- if and $model.group (eq $neighbour.group $model.group) (mod $neighbour.accelerator.count $count) }}
models.{{ $other }}.accelerator.count: {{ int $neighbour.accelerator.count }} of a worker of {{ $model.group }} leave {{ $name }} no whole {{ $count }} on a node; set a multiple of {{ $count }}, or the workerGroup of one of the two to another group
{{- end }}
{{- end }}
{{- with get $.groups $model.group }}
{{- $have := mul .maxReplicas .count }}
{{- if and (eq 0 (int $model.autoscalingConfig.min_replicas)) (gt (int $model.devices) (int $have)) }}
{{ $path }}: one replica takes {{ int $model.devices }} x {{ .type }}, but {{ int .maxReplicas }} workers of {{ int .count }} have {{ $have }}; raise workerGroups.{{ $model.group }}.maxReplicas
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Models whose prompts are read by replicas of their own, and their KV caches moved between engines. */ -}}
{{- define "llm-serving.validate.prefill" -}}
{{- range $name, $model := .onRay }}
{{- if $model.prefill }}
{{- $path := printf "models.%s.parallelism.prefill" $name }}
{{- if ne $model.task "generate" }}
{{ $path }}: only a model that generates reads a prompt first, got {{ $model.task }}; leave it out
{{- end }}
{{- if or (gt (int $model.nodes) 1) (gt (int $model.parallelism.data) 1) }}
{{ $path }}: not together with nodes and parallelism.data, got {{ int $model.nodes }} and {{ int $model.parallelism.data }}; set both to 1
{{- end }}
{{- if $model.lora }}
{{ $path }}: not together with lora, whose adapters are loaded where answers are made only; leave one of the two out
{{- end }}
{{- $extra := $model.engine.extra | default dict }}
{{- if hasKey $extra "kv_offloading_size" }}
{{ $path }}: not together with engine.extra.kv_offloading_size, which has vLLM move KV caches to the host's memory instead; leave one of the two out
{{- end }}
{{- if not (hasKey $extra "kv_transfer_config") }}
{{- if eq $model.accelerator.type "cpu" }}
{{ $path }}: NIXL moves KV caches between GPUs, got accelerator.type cpu; set a GPU, or a connector for CPUs as engine.extra.kv_transfer_config
{{- end }}
{{- range $other, $neighbour := omit $.onRay $name }}
{{- if and $neighbour.prefill (eq $neighbour.group $model.group) (lt $name $other) }}
models.{{ $other }}.parallelism.prefill: takes the ports that NIXL has in the workers of {{ $model.group }} for {{ $name }}; set the workerGroup of one of the two to another group
{{- end }}
{{- end }}
{{- end }}
{{- with get $.groups $model.group }}
{{- $pair := mul 2 $model.devices | int }}
{{- $have := mul .maxReplicas .count | int }}
{{- if and (lt (int $model.accelerators.least) $pair) (gt $pair $have) }}
{{ $path }}: a replica that reads and one that answers take {{ $pair }} x {{ .type }}, but {{ int .maxReplicas }} workers of {{ int .count }} have {{ $have }}; raise workerGroups.{{ $model.group }}.maxReplicas
{{- end }}
{{- end }}
{{- include "llm-serving.validate.engine" (dict "path" $path "engine" $model.prefill.engine) }}
{{- include "llm-serving.validate.autoscaling" (dict "path" $path "block" $model.prefill "config" $model.prefill.autoscalingConfig "maxOngoing" $model.prefill.maxOngoingRequests "maxOngoingPath" (printf "%s.maxOngoingRequests" $path)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Models that the chart runs without Ray. */ -}}
{{- define "llm-serving.validate.standalone" -}}
{{- $values := .root.Values }}
{{- if .standalone }}
{{- $entries := include "llm-serving.entries" (dict "entries" $values.models "overrides" $values.overrides.models) | fromJson }}
{{- range $name, $model := .standalone }}
{{- $path := printf "models.%s" $name }}
{{- $resource := include "llm-serving.standaloneName" (dict "root" $.root "name" $name) }}
{{- if gt (len $resource) 63 }}
{{ $path }}: a Service's name has at most 63 characters, got {{ len $resource }} ({{ $resource }}); shorten the model's name or set fullnameOverride
{{- end }}
{{- if lt (int $model.autoscalingConfig.min_replicas) 1 }}
{{ $path }}.replicas.min: a standalone model cannot start for a request, got 0; set 1 or more, or runtime to ray
{{- end }}
{{- range $key, $instead := dict "autoscaling" "set standalone.autoscaler and maxOngoingRequests, or leave it out" "maxQueuedRequests" "set queue, or leave it out" "lora" "set runtime to ray, or leave it out" }}
{{- if get (get $entries $name) $key }}
{{ $path }}.{{ $key }}: belongs to models that Ray runs; {{ $instead }}
{{- end }}
{{- end }}
{{- if gt (int $model.nodes) 1 }}
{{ $path }}.nodes: belongs to models that Ray runs; set runtime to ray, or nodes to 1
{{- end }}
{{- if gt (int $model.parallelism.data) 1 }}
{{ $path }}.parallelism.data: belongs to models that Ray runs; set runtime to ray, or data to 1
{{- end }}
{{- if $model.prefill }}
{{ $path }}.parallelism.prefill: belongs to models that Ray runs; set runtime to ray, or leave it out
{{- end }}
{{- if hasKey $model.sampling "max_tokens" }}
{{ $path }}.sampling.max_tokens: vLLM's own server would cut every answer there, also of requests that ask for more; leave it out, or set maxTokens of tenants
{{- end }}
{{- range $key, $_ := $model.engine.extra }}
{{- if has $key (list "host" "port" "uds" "root_path" "middleware" "ssl_certfile" "override_generation_config") }}
{{ $path }}.engine.extra.{{ $key }}: a standalone model's server is the chart's to set up; leave it out{{ if eq $key "override_generation_config" }}, and set sampling{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq $values.standalone.autoscaler "keda") (include "llm-serving.scaledStandalone" .root | fromJson) (not $values.standalone.prometheus) }}
standalone.prometheus: missing, and KEDA asks it how much there is to do; set its address, for example http://prometheus-operated.monitoring:9090
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where weights or adapters are. Scope: dict "path" "source". */ -}}
{{- define "llm-serving.validate.source" -}}
{{- $image := "[^/@#\\s]+/[^@#\\s]+(:[^/@:#\\s]+|@sha256:[0-9a-f]{64})" }}
{{- if not (regexMatch (printf "^(hf://[^/@]+/[^/@]+(@[^/@]+)?|s3://.+|gs://.+|pvc://[^/]+(/.+)?|oci://%s(#[^/].*)?)$" $image) .source) }}
{{ .path }}: not a source, got {{ .source }}; one of: hf://org/name[@revision], s3://bucket/path, gs://bucket/path, pvc://claim/path, oci://registry/name:tag[#path]
{{- else if and (hasPrefix "pvc://" .source) (has ".." (splitList "/" .source)) }}
{{ .path }}: leaves its claim, got {{ .source }}; set pvc://claim/path
{{- else if and (hasPrefix "oci://" .source) (has ".." (regexSplit "[#/]" .source -1)) }}
{{ .path }}: leaves its image, got {{ .source }}; set oci://registry/name:tag#path
{{- end }}
{{- end -}}

{{- /* Adapters: where they are, and that a name leads to one thing. */ -}}
{{- define "llm-serving.validate.lora" -}}
{{- $taken := dict }}
{{- range $name := keys .upstreams }}{{ $_ := set $taken $name "a model or pipeline" }}{{ end }}
{{- range $name, $route := .routes }}
{{- $_ := set $taken $name "a route" }}
{{- range $route.aliases }}{{ $_ := set $taken . (printf "an alias of %s" $name) }}{{ end }}
{{- end }}
{{- range $name, $model := .models }}
{{- $path := printf "models.%s" $name }}
{{- if hasKey $model.env "VLLM_ALLOW_RUNTIME_LORA_UPDATING" }}
{{ $path }}.env: VLLM_ALLOW_RUNTIME_LORA_UPDATING has vLLM load whatever path it is told; take it out, and use {{ $path }}.lora
{{- end }}
{{- with hasKey $.onRay $name | ternary $model.lora nil }}
{{- $path := printf "models.%s.lora" $name }}
{{- if not (or .directory .adapters) }}
{{ $path }}: no adapters; set directory, or adapters
{{- end }}
{{- if and .maxCpuLoras (lt (int .maxCpuLoras) (int .maxLoras)) }}
{{ $path }}.maxCpuLoras: below maxLoras ({{ int .maxLoras }}), got {{ int .maxCpuLoras }}; set {{ int .maxLoras }} or more
{{- end }}
{{- $sources := dict }}
{{- with .directory }}{{ $_ := set $sources (printf "%s.directory" $path) . }}{{ end }}
{{- $directory := .directory }}
{{- range $adapter, $entry := .adapters }}
{{- $at := printf "%s.adapters.%s" $path $adapter }}
{{- if or (gt (len $adapter) 63) (not (regexMatch "^[A-Za-z0-9_][A-Za-z0-9._-]*$" $adapter)) }}
{{ $path }}.adapters: not an adapter's name, got {{ $adapter | quote }}; use letters, digits, dots, dashes and underscores, at most 63
{{- else if hasKey $taken $adapter }}
{{ $at }}: {{ $adapter }} is {{ get $taken $adapter }}; choose another name
{{- end }}
{{- $_ := set $sources (printf "%s.source" $at) $entry.source }}
{{- if $entry.tenants }}
{{- if $directory }}
{{ $at }}.tenants: what is in {{ $path }}.directory is for everybody who may use {{ $name }}; leave directory out, and name its adapters
{{- else if eq $.root.Values.security.auth "none" }}
{{ $at }}.tenants: with security.auth none all callers are one tenant; leave tenants out, or set security.auth to apiKeys or jwt
{{- end }}
{{- end }}
{{- end }}
{{- range $at, $source := $sources }}
{{- include "llm-serving.validate.source" (dict "path" $at "source" $source) }}
{{- include "llm-serving.validate.mounted" (dict "path" $at "source" $source "name" $model.group "groups" $.groups) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* What vLLM would find out when it starts, on nodes that are paid for: weights, and one request of the whole context. */ -}}
{{- define "llm-serving.validate.fit" -}}
{{- range $name, $model := .models }}
{{- $path := printf "models.%s" $name }}
{{- with include "llm-serving.fit" $model | fromYaml }}
{{- $context := int64 ($model.engine.max_model_len | default 0) }}
{{- if le .roomGb 0.0 }}
{{ $path }}.accelerator: {{ printf "%.1f GB of weights (%.1f billion parameters at %.2g bytes) do not fit into %s, with %.1f GB for them on each" .weightsGb .parameters .bytes .on .eachGb }}; set count to {{ .least }} or more, a larger type, or engine.quantization
{{- else if gt $context (int64 .tokens) }}
{{ $path }}.engine.max_model_len: one request of {{ $context }} tokens does not fit: {{ include "llm-serving.fitInWords" (dict "fit" . "engine" dict) }}; set {{ int64 .tokens }} or less, kv_cache_dtype to fp8, or more accelerators
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Models that the chart does not run: they have an address, and nothing of replicas. */ -}}
{{- define "llm-serving.validate.elsewhere" -}}
{{- range $name, $model := .elsewhere }}
{{- $path := printf "models.%s" $name }}
{{- if hasKey $.pipelines $name }}
{{ $path }}: rag.{{ $name }} is published as a model of the same name; rename one
{{- end }}
{{- if hasKey $.agents $name }}
{{ $path }}: agent.{{ $name }} is published as a model of the same name; rename one
{{- end }}
{{- if not $model.url }}
{{ $path }}.url: missing; set where the model answers, for example https://api.example.com
{{- else if not (regexMatch "^https?://[^?#]+[^/?#]$" $model.url) }}
{{ $path }}.url: not an address, got {{ $model.url }}; set http(s)://host:port, without a query and a / at its end
{{- else if hasSuffix "/v1" $model.url }}
{{ $path }}.url: the gateway appends /v1/… itself, got {{ $model.url }}; set {{ trimSuffix "/v1" $model.url }}
{{- end }}
{{- range $key := without (keys $model | sortAlpha) "task" "runtime" "url" "servedModel" "credential" "takesPriority" "price" "queue" }}
{{ $path }}.{{ $key }}: belongs to models that the chart runs, and this one is at {{ $model.url | default "a url" }}; leave it out{{ if eq $model.runtime "standalone" }}, or the url{{ end }}
{{- end }}
{{- if and $model.credential (eq $model.runtime "standalone") }}
{{ $path }}.credential: a standalone model gets our internal credential; leave it out, or set runtime to external
{{- end }}
{{- if and $model.takesPriority (eq $model.runtime "external") }}
{{ $path }}.takesPriority: other providers take no priority; leave it out, or set runtime to standalone
{{- end }}
{{- if and $model.queue (not (dig "maxConcurrent" 0 $model.queue)) }}
{{ $path }}.queue.maxConcurrent: missing; set how many requests one replica of the gateway may have there at a time
{{- end }}
{{- end }}
{{- end -}}

{{- /* Whether a model has a worker group. Scope: dict "path" "model" (of llm-serving.models) "groups". */ -}}
{{- define "llm-serving.validate.modelGroup" -}}
{{- $type := .model.accelerator.type }}
{{- $count := int .model.accelerator.count }}
{{- $counts := list }}
{{- range $name, $group := .groups }}
{{- if eq $group.type $type }}{{ $counts = append $counts (printf "%d (%s)" (int $group.count) $name) }}{{ end }}
{{- end }}
{{- $explicit := .model.workerGroup }}
{{- $group := get .groups .model.group }}
{{- if and $explicit (not $group) }}
{{ .path }}.workerGroup: no such enabled group, got {{ $explicit }}; one of: {{ keys .groups | sortAlpha | join ", " }}
{{- else if and $explicit (ne $group.type $type) }}
{{ .path }}.workerGroup: {{ $explicit }} has {{ $group.type | default "no accelerator" }}, not {{ $type }}; set another group or accelerator.type
{{- else if and $explicit (mod $group.count $count) }}
{{ .path }}.accelerator.count: replicas must fill a worker of {{ $explicit }} ({{ int $group.count }} x {{ $type }}) evenly, got {{ $count }}; set a divisor of {{ int $group.count }}
{{- else if and $explicit (gt (int .model.nodes) 1) (ne (int $group.count) $count) }}
{{ .path }}.accelerator.count: with nodes a replica fills a worker of {{ $explicit }} ({{ int $group.count }} x {{ $type }}) on each, got {{ $count }}; set {{ int $group.count }}
{{- else if not (or $explicit $counts) }}
{{ .path }}.accelerator.type: no enabled worker group has {{ $type }}; add or enable one under workerGroups
{{- else if not $group }}
{{- if gt (int .model.nodes) 1 }}
{{ .path }}.accelerator.count: with nodes a replica fills a worker on each, and no enabled worker group has {{ $count }} x {{ $type }}; set one of: {{ join ", " $counts }}
{{- else }}
{{ .path }}.accelerator.count: no enabled worker group is filled evenly by replicas of {{ $count }} x {{ $type }}; set a divisor of one of: {{ join ", " $counts }}
{{- end }}
{{- else if eq (.model.runtime | default "ray") "ray" }}
{{- include "llm-serving.validate.mounted" (dict "path" (printf "%s.source" .path) "source" .model.source "name" .model.group "groups" .groups) }}
{{- end }}
{{- end -}}

{{- /* Whether a worker group mounts what a source is on. Scope: dict "path" "source" "name" (the group's) "groups". */ -}}
{{- define "llm-serving.validate.mounted" -}}
{{- $group := get .groups .name }}
{{- with include "llm-serving.mounted" .source | fromYaml }}
{{- if and $group (not (has .name (get $group .key))) }}
{{ $.path }}: worker group {{ $.name }} does not mount the {{ .what }} {{ .name }}; add it to workerGroups.{{ $.name }}.{{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Volumes that an older Kubernetes knows nothing of. */ -}}
{{- define "llm-serving.validate.imageVolumes" -}}
{{- $version := .root.Capabilities.KubeVersion.Version }}
{{- if semverCompare "<1.33.0-0" $version }}
{{- range include "llm-serving.imageVolumes" .root | fromYamlArray }}
{{ . }}: Kubernetes mounts images from 1.33 on, got {{ $version }}; upgrade it, or put the weights on a claim (pvc://claim/path)
{{- end }}
{{- end }}
{{- end -}}

{{- /* Engine arguments as vLLM spells them, less those that the chart derives from other keys. Scope: dict "path" "engine". */ -}}
{{- define "llm-serving.validate.engine" -}}
{{- $owned := dict
      "model" "source"
      "served_model_name" "the model's key"
      "tensor_parallel_size" "accelerator.count"
      "pipeline_parallel_size" "nodes"
      "data_parallel_size" "parallelism.data"
      "enable_expert_parallel" "parallelism.experts"
      "distributed_executor_backend" "accelerator.type"
      "runner" "task"
      "convert" "task"
      "api_key" "security (the gateway holds the keys)"
      "enable_lora" "lora"
      "max_loras" "lora.maxLoras"
      "max_cpu_loras" "lora.maxCpuLoras"
      "max_lora_rank" "lora.maxRank"
      "lora_modules" "lora.adapters" }}
{{- $path := .path }}
{{- $engine := .engine }}
{{- range $key, $_ := .engine.extra }}
{{- if contains "-" $key }}
{{ $path }}.engine.extra.{{ $key }}: vLLM's arguments are written with underscores; set {{ replace "-" "_" $key }}
{{- else if hasKey $owned $key }}
{{ $path }}.engine.extra.{{ $key }}: not set here; set {{ get $owned $key }}
{{- else if hasKey $engine $key }}
{{ $path }}.engine.extra.{{ $key }}: also set as engine.{{ $key }}; keep one
{{- end }}
{{- end }}
{{- end -}}

{{- /* How weights are read: Ray downloads from buckets first, unless it is told to stream; without Ray vLLM always streams.
Scope: dict "path" "model". */ -}}
{{- define "llm-serving.validate.loading" -}}
{{- $model := .model }}
{{- $format := $model.engine.load_format | default "auto" }}
{{- $streams := hasPrefix "runai_streamer" $format }}
{{- $alone := and (eq ($model.runtime | default "ray") "standalone") (regexMatch "^(s3|gs)://" $model.source) }}
{{- if and $streams (eq $model.accelerator.type "cpu") }}
{{ .path }}.engine.load_format: the image for CPUs has no streamer, got {{ $format }}; leave it out
{{- else if and $alone (eq $model.accelerator.type "cpu") }}
{{ .path }}.source: without Ray vLLM streams from a bucket, and the image for CPUs has no streamer, got {{ $model.source }}; set runtime to ray, or another source
{{- else if and $alone (not (has $format (list "auto" "runai_streamer" "runai_streamer_sharded"))) }}
{{ .path }}.engine.load_format: without Ray vLLM streams from a bucket, got {{ $format }}; leave it out, or set runtime to ray
{{- else if and (eq $format "runai_streamer_sharded") (hasPrefix "gs://" $model.source) }}
{{ .path }}.engine.load_format: runai_streamer_sharded reads s3:// and folders, got {{ $model.source }}; set runai_streamer
{{- end }}
{{- end -}}
