{{- /* Fails with every rule that is broken, one line each: `path: problem, got value; what to set`. Rules one key
breaks by itself are the schema's. Each define below renders its subject's lines. Scope: the root. */ -}}
{{- define "llm-serving.validate" -}}
{{- $onRay := include "llm-serving.models" . | fromYaml }}
{{- $standalone := include "llm-serving.standalone" . | fromYaml }}
{{- $groups := include "llm-serving.workerGroups" . | fromYaml }}
{{- $pipelines := include "llm-serving.pipelines" . | fromYaml }}
{{- $agents := include "llm-serving.agents" . | fromYaml }}
{{- $routes := include "llm-serving.entries" (dict "entries" .Values.gateway.routes) | fromYaml }}
{{- $scope := dict
      "root" .
      "models" (merge (dict) $onRay $standalone)
      "onRay" $onRay
      "standalone" $standalone
      "elsewhere" (include "llm-serving.elsewhere" . | fromYaml)
      "upstreams" (include "llm-serving.upstreams" . | fromYaml)
      "routes" $routes
      "groups" $groups
      "pipelines" $pipelines
      "agents" $agents }}
{{- $lines := list }}
{{- range $subject := list "name" "names" "upgrade" "models" "parallelism" "prefill" "lora" "fit" "imageVolumes" "standalone" "elsewhere" "gateway" "routes" "aliases" "tenants" "security" "rag" "pipelines" "agents" "agentTools" "agentCost" "graphs" "batch" "batchJobs" "drain" "workerGroups" "nodePools" "resources" "podTemplates" "ingress" "dashboard" "secrets" "redis" "milvus" }}
{{- $lines = concat $lines (include (printf "llm-serving.validate.%s" $subject) $scope | splitList "\n") }}
{{- end }}
{{- $broken := list }}
{{- range $lines }}{{ with trim . }}{{ $broken = append $broken . }}{{ end }}{{ end }}
{{- if $broken }}
{{- printf "\n%s" (join "\n" $broken) | fail }}
{{- end }}
{{- end -}}

{{- /* The RayService's name. KubeRay appends up to 16 characters and labels cannot exceed 63; DNS-1035. */ -}}
{{- define "llm-serving.validate.name" -}}
{{- $name := include "llm-serving.fullname" .root }}
{{- if gt (len $name) 47 }}
fullnameOverride: KubeRay allows 47 characters for the RayService's name, got {{ len $name }} ({{ $name }}); set a shorter fullnameOverride or release name
{{- else if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
fullnameOverride: a RayService's name starts with a letter and has only lower-case letters, digits and dashes, got {{ $name }}; set fullnameOverride
{{- end }}
{{- end -}}

{{- /* The keys of the collections. A model's is a Serve application, a route, a metric label and part of a URL. */ -}}
{{- define "llm-serving.validate.names" -}}
{{- $values := .root.Values }}
{{- range $path, $entries := dict "models" $values.models "rag" $values.rag "agent" $values.agent "batch.jobs" $values.batch.jobs "gateway.routes" $values.gateway.routes "workerGroups" $values.workerGroups "overrides.models" $values.overrides.models "overrides.rag" $values.overrides.rag "overrides.agent" $values.overrides.agent }}
{{- range $name, $_ := $entries }}
{{- if or (gt (len $name) 47) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name)) }}
{{ $path }}: not a name, got {{ $name | quote }}; use lower-case letters, digits and dashes, at most 47
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.upgrade" -}}
{{- $type := .root.Values.upgradeStrategy.type }}
{{- if eq $type "NewClusterWithIncrementalUpgrade" }}
upgradeStrategy.type: KubeRay makes no {{ include "llm-serving.serveServiceName" .root }} under NewClusterWithIncrementalUpgrade, and 1.6 ignores it unless a feature gate is on; set NewCluster or None
{{- else if not (has $type (list "NewCluster" "None")) }}
upgradeStrategy.type: not an upgrade strategy, got {{ $type }}; one of: NewCluster, None
{{- end }}
{{- end -}}

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
{{- $entries := include "llm-serving.entries" (dict "entries" $values.models "overrides" $values.overrides.models) | fromYaml }}
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
{{- if and (eq $values.standalone.autoscaler "keda") (include "llm-serving.scaledStandalone" .root | fromYaml) (not $values.standalone.prometheus) }}
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

{{- /* Bounds and target of one block that scales.
Scope: dict "path" "block" (with replicas and autoscaling) "config" (as rendered) "maxOngoing" and its "maxOngoingPath". */ -}}
{{- define "llm-serving.validate.autoscaling" -}}
{{- $path := .path }}
{{- $replicas := include "llm-serving.withoutNulls" (.block.replicas | default dict) | fromYaml }}
{{- $autoscaling := include "llm-serving.withoutNulls" (.block.autoscaling | default dict) | fromYaml }}
{{- range $bound := list "min" "max" }}
{{- if and (hasKey $replicas $bound) (hasKey $autoscaling (printf "%s_replicas" $bound)) }}
{{ $path }}: {{ $bound }} replicas are set twice; keep replicas.{{ $bound }} or autoscaling.{{ $bound }}_replicas
{{- end }}
{{- end }}
{{- $config := .config }}
{{- if gt (int $config.min_replicas) (int $config.max_replicas) }}
{{ $path }}.replicas: min is above max, got {{ int $config.min_replicas }} and {{ int $config.max_replicas }}; set min <= max
{{- else if and (hasKey $config "initial_replicas") (or (lt (int $config.initial_replicas) (int $config.min_replicas)) (gt (int $config.initial_replicas) (int $config.max_replicas))) }}
{{ $path }}.autoscaling.initial_replicas: outside the bounds {{ int $config.min_replicas }} and {{ int $config.max_replicas }}, got {{ int $config.initial_replicas }}; set one between
{{- end }}
{{- if gt (float64 $config.target_ongoing_requests) (float64 .maxOngoing) }}
{{ $path }}.autoscaling.target_ongoing_requests: a replica never has more than {{ .maxOngoingPath }} ({{ int .maxOngoing }}) requests, so it would never scale, got {{ $config.target_ongoing_requests }}; set {{ .maxOngoing | int }} or less
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.gateway" -}}
{{- $gateway := .root.Values.gateway }}
{{- $config := include "llm-serving.gatewayAutoscaling" .root | fromYaml }}
{{- if lt (int $config.min_replicas) 1 }}
gateway.replicas.min: the gateway is the only way in and cannot start by itself, got 0; set 1 or more
{{- end }}
{{- include "llm-serving.validate.autoscaling" (dict "path" "gateway" "block" $gateway "config" $config "maxOngoing" $gateway.maxConcurrentRequests "maxOngoingPath" "gateway.maxConcurrentRequests") }}
{{- if has (int $gateway.port) (list 6379 8080 8265 8404 8500 9101 9500 10001 44217 44227 52365) }}
gateway.port: Ray itself listens on {{ int $gateway.port }}; set another port, for example 8000
{{- end }}
{{- end -}}

{{- /* What stands behind each route: models there are, all of one task, one of which gets requests. */ -}}
{{- define "llm-serving.validate.routes" -}}
{{- $upstreams := .upstreams }}
{{- $known := keys $upstreams | sortAlpha | join ", " | default "none" }}
{{- range $name, $route := .routes }}
{{- $path := printf "gateway.routes.%s" $name }}
{{- $versions := list }}
{{- $served := list }}
{{- range $route.versions }}
{{- if has .model $versions }}
{{ $path }}.versions: {{ .model }} stands there twice; keep one, with the sum of the weights
{{- end }}
{{- $versions = append $versions .model }}
{{- if gt (dig "weight" 100 . | float64) 0.0 }}{{ $served = append $served .model }}{{ end }}
{{- end }}
{{- if not $served }}
{{ $path }}.versions: every weight is 0, so nobody would answer; give one version a weight
{{- end }}
{{- $shadow := dig "shadow" "model" "" $route }}
{{- $named := dict "versions" $versions "fallback" ($route.fallback | default list) "shadow.model" (empty $shadow | ternary list (list $shadow)) }}
{{- $task := dig (first $versions) "task" "" $upstreams }}
{{- range $key, $models := $named }}
{{- range $model := uniq $models }}
{{- $other := dig $model "task" "" $upstreams }}
{{- if not (hasKey $upstreams $model) }}
{{ $path }}.{{ $key }}: no such enabled model, got {{ $model }}; one of: {{ $known }}
{{- else if and $task (ne $other $task) }}
{{ $path }}.{{ $key }}: {{ $model }} is of task {{ $other }} and {{ first $versions }} of {{ $task }}; name models of one task
{{- end }}
{{- end }}
{{- end }}
{{- if and $shadow (eq (len $served) 1) (eq $shadow (first $served)) }}
{{ $path }}.shadow.model: {{ $shadow }} answers every request already; name another model, or leave the shadow out
{{- end }}
{{- $fallback := $route.fallback | default list }}
{{- if ne (len $fallback) (uniq $fallback | len) }}
{{ $path }}.fallback: a model stands there twice, got {{ join ", " $fallback }}; name each once
{{- end }}
{{- if and (eq (len $versions) 1) (has (first $versions) $fallback) }}
{{ $path }}.fallback: {{ first $versions }} is what failed when the fallback is asked; name another model
{{- end }}
{{- with $route.canary }}
{{- if not (or (hasKey . "maxErrorRate") (hasKey . "ttftP95S") (hasKey . "itlP95S")) }}
{{ $path }}.canary: no rule, so nothing would be judged; set maxErrorRate, ttftP95S or itlP95S
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A name leads to one route or model. */ -}}
{{- define "llm-serving.validate.aliases" -}}
{{- $owners := dict }}
{{- range $name, $route := .routes }}
{{- range $alias := $route.aliases }}
{{- $path := printf "gateway.routes.%s.aliases" $name }}
{{- if hasKey $.routes $alias }}
{{ $path }}: {{ $alias }} is a route; take it out
{{- else if hasKey $.upstreams $alias }}
{{ $path }}: {{ $alias }} is a model; take it out, or give a route that name, which hides the model
{{- else if hasKey $owners $alias }}
{{ $path }}: {{ $alias }} is an alias of {{ get $owners $alias }}; keep one of the two
{{- end }}
{{- $_ := set $owners $alias $name }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* What tenants may name, and limits that let nothing through. */ -}}
{{- define "llm-serving.validate.tenants" -}}
{{- $gateway := .root.Values.gateway }}
{{- $names := keys .upstreams .routes | uniq | sortAlpha }}
{{- $adapters := list }}
{{- $directories := list }}
{{- range $name, $upstream := .upstreams }}
{{- range $adapter := keys ($upstream.adapters | default dict) }}{{ $adapters = append $adapters (printf "%s:%s" $name $adapter) }}{{ end }}
{{- if $upstream.otherAdapters }}{{ $directories = append $directories $name }}{{ end }}
{{- end }}
{{- $tenants := dict "gateway.otherTenants" (include "llm-serving.withoutNulls" ($gateway.otherTenants | default dict) | fromYaml) }}
{{- range $name, $tenant := include "llm-serving.entries" (dict "entries" $gateway.tenants) | fromYaml }}
{{- $_ := set $tenants (printf "gateway.tenants.%s" $name) $tenant }}
{{- end }}
{{- range $path, $tenant := $tenants }}
{{- range $model := $tenant.models }}
{{- $base := splitList ":" $model | first }}
{{- if not (or (has $model $names) (has $model $adapters) (and (ne $base $model) (has $base $directories))) }}
{{ $path }}.models: no such route, model or pipeline, got {{ $model }}; one of: {{ $names | join ", " | default "none" }}
{{- end }}
{{- end }}
{{- if and $tenant.maxTokens $tenant.tokensPerMinute }}
{{- if gt (int64 $tenant.maxTokens) (int64 $tenant.tokensPerMinute) }}
{{ $path }}.maxTokens: one request would take more than tokensPerMinute ({{ int64 $tenant.tokensPerMinute }}), got {{ int64 $tenant.maxTokens }}; set less, or raise tokensPerMinute
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.security" -}}
{{- $security := .root.Values.security }}
{{- $jwt := include "llm-serving.withoutNulls" ($security.jwt | default dict) | fromYaml }}
{{- if and (eq $security.auth "jwt") (not $jwt) }}
security.jwt: missing; with security.auth jwt set issuer and audience
{{- else if $jwt }}
{{- range $key := list "issuer" "audience" }}
{{- if not (get $jwt $key) }}
security.jwt.{{ $key }}: missing; set what the tokens have as {{ $key | trunc 3 }}
{{- end }}
{{- end }}
{{- if and $jwt.issuer (not $jwt.jwksUrl) (not (regexMatch "^https?://" $jwt.issuer)) }}
security.jwt.issuer: no URL, so nobody knows where its keys are, got {{ $jwt.issuer }}; set https://… as the tokens have it, or jwksUrl
{{- end }}
{{- end }}
{{- end -}}

{{- /* What the pipelines refer to. A route is of the task of its versions. */ -}}
{{- define "llm-serving.validate.rag" -}}
{{- $models := dict }}
{{- range $name, $upstream := .upstreams }}{{ if not (has $upstream.task (list "pipeline" "agent")) }}{{ $_ := set $models $name $upstream }}{{ end }}{{ end }}
{{- range $name, $route := .routes }}
{{- $_ := set $models $name (dict "task" (dig (first $route.versions).model "task" "" $.upstreams)) }}
{{- end }}
{{- $tasks := dict "llm" "generate" "vision" "generate" "embedder" "embed" "reranker" "score" }}
{{- range $name, $pipeline := .pipelines }}
{{- range $role, $task := $tasks }}
{{- $reference := get $pipeline $role }}
{{- if $reference }}
{{- $ofTask := list }}
{{- range $model, $entry := $models }}{{ if eq $entry.task $task }}{{ $ofTask = append $ofTask $model }}{{ end }}{{ end }}
{{- if not (hasKey $models $reference) }}
rag.{{ $name }}.{{ $role }}: no such enabled model, got {{ $reference }}; models of task {{ $task }}: {{ $ofTask | join ", " | default "none" }}
{{- else if not (has $reference $ofTask) }}
rag.{{ $name }}.{{ $role }}: needs a model of task {{ $task }}, but {{ $reference }} is of task {{ get (get $models $reference) "task" }}; models of task {{ $task }}: {{ $ofTask | join ", " | default "none" }}
{{- end }}
{{- end }}
{{- end }}
{{- $uri := dig "vectorStore" "uri" "" $pipeline }}
{{- if not $uri }}
rag.{{ $name }}.vectorStore.uri: missing, and the release has no Milvus; set milvus.enabled, milvus.uri or a file name ending in .db
{{- else if not (or (hasPrefix "http://" $uri) (hasPrefix "https://" $uri) (hasSuffix ".db" $uri)) }}
rag.{{ $name }}.vectorStore.uri: neither a server nor a file, got {{ $uri | quote }}; set http(s)://host:port or a file name ending in .db
{{- end }}
{{- $chunking := $pipeline.chunking | default dict }}
{{- $most := dig "maxTokens" 256 $chunking | int }}
{{- $overlap := dig "overlapTokens" 32 $chunking | int }}
{{- if ge $overlap $most }}
rag.{{ $name }}.chunking.overlapTokens: must be below maxTokens ({{ $most }}), got {{ $overlap }}; set less
{{- end }}
{{- with $pipeline.ingest }}
{{- if not (regexMatch "^(s3|gs)://[^/]+|^pvc://[^/]+" (.source | default "")) }}
rag.{{ $name }}.ingest.source: not a source, got {{ .source | default "" | quote }}; one of: s3://bucket/prefix, gs://bucket/prefix, pvc://claim/path
{{- else if and (hasPrefix "pvc://" .source) (has ".." (splitList "/" .source)) }}
rag.{{ $name }}.ingest.source: leaves its claim, got {{ .source }}; set pvc://claim/path
{{- end }}
{{- if and (eq ($pipeline.tenancy | default "shared") "tenant") (not .tenant) }}
rag.{{ $name }}.ingest.tenant: missing; with tenancy tenant say whose documents they are
{{- end }}
{{- end }}
{{- if and (eq ($pipeline.tenancy | default "shared") "tenant") (eq $.root.Values.security.auth "none") }}
rag.{{ $name }}.tenancy: with security.auth none all callers are one tenant; set shared, or security.auth to apiKeys or jwt
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.pipelines" -}}
{{- $sizing := .root.Values.pipelines }}
{{- $config := include "llm-serving.autoscalingConfig" (dict "replicas" $sizing.replicas "autoscaling" $sizing.autoscaling "maxOngoing" $sizing.maxOngoingRequests) | fromYaml }}
{{- include "llm-serving.validate.autoscaling" (dict "path" "pipelines" "block" $sizing "config" $config "maxOngoing" $sizing.maxOngoingRequests "maxOngoingPath" "pipelines.maxOngoingRequests") }}
{{- $reading := $sizing.reading }}
{{- $readers := include "llm-serving.autoscalingConfig" (dict "replicas" $reading.replicas "autoscaling" $reading.autoscaling "maxOngoing" 2) | fromYaml }}
{{- include "llm-serving.validate.autoscaling" (dict "path" "pipelines.reading" "block" $reading "config" $readers "maxOngoing" 2 "maxOngoingPath" "its processes") }}
{{- range $name, $pipeline := .pipelines }}
{{- if and (hasSuffix ".db" (dig "vectorStore" "uri" "" $pipeline)) (gt (int $config.max_replicas) 1) }}
rag.{{ $name }}.vectorStore.uri: a file belongs to one replica, but pipelines may have {{ int $config.max_replicas }}; set pipelines.replicas.max to 1 or the uri of a Milvus server
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders the names of models and routes that chat, as a JSON array. */ -}}
{{- define "llm-serving.validate.chats" -}}
{{- $chats := list }}
{{- range $name, $upstream := .upstreams }}{{ if eq $upstream.task "generate" }}{{ $chats = append $chats $name }}{{ end }}{{ end }}
{{- range $name, $route := .routes }}
{{- if eq "generate" (dig (first $route.versions).model "task" "" $.upstreams) }}{{ $chats = append $chats $name }}{{ end }}
{{- end }}
{{- $chats | uniq | sortAlpha | toJson }}
{{- end -}}

{{- /* Whom an agent asks. A model that calls tools in its own way needs a parser where Ray runs it; elsewhere nobody here
knows. */ -}}
{{- define "llm-serving.validate.agents" -}}
{{- $chats := include "llm-serving.validate.chats" . | fromJsonArray }}
{{- range $name, $agent := .agents }}
{{- $path := printf "agent.%s" $name }}
{{- if hasKey $.pipelines $name }}
{{ $path }}: rag.{{ $name }} is published as a model of the same name; rename one
{{- end }}
{{- if not (has $agent.model $chats) }}
{{ $path }}.model: no model of task generate, got {{ $agent.model | default "nothing" }}; one of: {{ $chats | join ", " | default "none" }}
{{- else if eq "native" ($agent.toolCalling | default "json") }}
{{- $versions := list (dict "model" $agent.model) }}
{{- with get $.routes $agent.model }}{{ $versions = .versions }}{{ end }}
{{- range $versions }}
{{- $model := get $.models .model }}
{{- if and $model (not (and (dig "extra" "tool_call_parser" "" $model.engine) (dig "extra" "enable_auto_tool_choice" false $model.engine))) }}
{{ $path }}.toolCalling: native needs a tool parser, and models.{{ .model }} has none; set models.{{ .model }}.engine.extra {enable_auto_tool_choice: true, tool_call_parser: …}, or toolCalling json
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* What an agent may spend can only be counted where something has a price. */ -}}
{{- define "llm-serving.validate.agentCost" -}}
{{- $prices := include "llm-serving.prices" .root | fromYaml }}
{{- range $name, $agent := .agents }}
{{- if dig "cost" 0 ($agent.limits | default dict) }}
{{- $asked := list $agent.model }}
{{- range $agent.graph | default dict | dig "steps" dict }}{{ $asked = append $asked (.ask | default dict).model }}{{ end }}
{{- $asked = compact $asked | uniq }}
{{- $priced := false }}
{{- range $asked }}{{ if hasKey $prices . }}{{ $priced = true }}{{ end }}{{ end }}
{{- if not $priced }}
agent.{{ $name }}.limits.cost: no price of {{ join ", " $asked }} is known, so nothing is ever spent; set models.<name>.price
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.agentTools" -}}
{{- $pipelines := keys .pipelines | sortAlpha | join ", " | default "none" }}
{{- range $agent, $settings := .agents }}
{{- range $name, $tool := $settings.tools }}
{{- $path := printf "agent.%s.tools.%s" $agent $name }}
{{- $kinds := list }}
{{- range $kind := list "calculator" "http" "mcp" "rag" }}{{ if kindIs "map" (get $tool $kind) }}{{ $kinds = append $kinds $kind }}{{ end }}{{ end }}
{{- if or (gt (len $name) 30) (not (regexMatch "^[A-Za-z_][A-Za-z0-9_-]*$" $name)) }}
{{ $path }}: not a tool's name; use letters, digits, dashes and underscores, at most 30
{{- else if eq $name "answer" }}
{{ $path }}: the word by which a model says that it answers; choose another name
{{- end }}
{{- if ne (len $kinds) 1 }}
{{ $path }}: one kind of calculator, http, mcp, rag; got {{ $kinds | join ", " | default "none" }}
{{- end }}
{{- with $tool.rag }}
{{- if not (hasKey $.pipelines .pipeline) }}
{{ $path }}.rag.pipeline: no such enabled pipeline, got {{ .pipeline }}; one of: {{ $pipelines }}
{{- end }}
{{- end }}
{{- with $tool.http }}
{{- $methods := .methods | default (list "GET") }}
{{- if not (or .operations .openapi) }}
{{ $path }}.http: nothing to call; set operations or openapi
{{- end }}
{{- range $operation, $what := .operations }}
{{- if not (has ($what.method | default "GET") $methods) }}
{{ $path }}.http.operations.{{ $operation }}.method: {{ $what.method | default "GET" }} is not allowed; add it to methods, which are {{ join ", " $methods }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where batches are kept, and who works on them. */ -}}
{{- define "llm-serving.validate.batch" -}}
{{- $batch := .root.Values.batch }}
{{- if $batch.enabled }}
{{- $storage := $batch.storage }}
{{- if not (regexMatch "^((s3|gs|pvc)://[^/@\\s]+(/[^@\\s]*)?|file:///[^@\\s]+)$" $storage) }}
batch.storage: not a storage, got {{ $storage | quote }}; one of: s3://bucket/prefix, gs://bucket/prefix, pvc://claim/path, file:///folder, without a credential
{{- else if has ".." (splitList "/" $storage) }}
batch.storage: leaves its folder, got {{ $storage }}; set a path without ..
{{- end }}
{{- if gt (int $batch.replicas) 1 }}
{{- if not (include "llm-serving.gatewayRedis" .root) }}
batch.replicas: replicas agree through Redis who works on which batch, and there is none, got {{ int $batch.replicas }}; set redis.enabled or redis.address (and gateway.sharesRedis), or replicas to 1
{{- end }}
{{- if hasPrefix "file://" $storage }}
batch.replicas: each pod has a folder of its own, and batch.storage is {{ $storage }}, got {{ int $batch.replicas }}; set replicas to 1, or storage to a bucket or a claim
{{- end }}
{{- end }}
{{- $most := int64 .root.Values.gateway.maxUploadBytes }}
{{- if gt (int64 $batch.maxFileBytes) $most }}
batch.maxFileBytes: files come through the gateway, which takes {{ $most }} bytes, got {{ int64 $batch.maxFileBytes }}; set less, or raise gateway.maxUploadBytes
{{- end }}
{{- end }}
{{- end -}}

{{- /* Batches on accelerators of their own. */ -}}
{{- define "llm-serving.validate.batchJobs" -}}
{{- range $name, $job := include "llm-serving.batchJobs" .root | fromYaml }}
{{- $path := printf "batch.jobs.%s" $name }}
{{- if not $job.entry }}
{{ $path }}.model: no enabled model that the chart runs, got {{ $job.model | quote }}; models: {{ keys $.models | sortAlpha | join ", " | default "none" }}
{{- else if hasKey $.standalone $job.model }}
{{- /* Its own pods mount it by themselves; those of a job are its worker group's. */}}
{{- include "llm-serving.validate.mounted" (dict "path" (printf "%s.model" $path) "source" $job.entry.source "name" $job.entry.group "groups" $.groups) }}
{{- end }}
{{- range $key := list "input" "output" }}
{{- $place := get $job $key }}
{{- if not (regexMatch "^(s3|gs|pvc)://[^/@\\s]+(/[^@\\s]*)?$" $place) }}
{{ $path }}.{{ $key }}: not a place, got {{ $place | quote }}; one of: s3://bucket/prefix, gs://bucket/prefix, pvc://claim/path, without a credential
{{- else if has ".." (splitList "/" $place) }}
{{ $path }}.{{ $key }}: leaves its folder, got {{ $place }}; set a path without ..
{{- end }}
{{- end }}
{{- if and $job.input (eq $job.input $job.output) }}
{{ $path }}.output: its files would be read as input, got {{ $job.output }}; set another folder
{{- end }}
{{- end }}
{{- end -}}

{{- /* No application may drain longer than a pod lives once it is told to go. */ -}}
{{- define "llm-serving.validate.drain" -}}
{{- $most := int .root.Values.maxDrainSeconds }}
{{- $drains := dict "gateway" .root.Values.gateway.drainSeconds "pipelines" .root.Values.pipelines.drainSeconds }}
{{- range $name, $model := .onRay }}{{ $_ := set $drains (printf "models.%s" $name) $model.drainSeconds }}{{ end }}
{{- range $path, $seconds := $drains }}
{{- if gt (int $seconds) $most }}
{{ $path }}.drainSeconds: pods end after maxDrainSeconds ({{ $most }}), got {{ int $seconds }}; set {{ $most }} or less, or raise maxDrainSeconds (rolls the cluster)
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.workerGroups" -}}
{{- $known := include "llm-serving.accelerators" . | fromYaml }}
{{- $pools := include "llm-serving.nodePools" .root | fromYaml }}
{{- $hosts := false }}
{{- range $name, $group := .groups }}
{{- $path := printf "workerGroups.%s" $name }}
{{- if $group.pipelines }}{{ $hosts = true }}{{ end }}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) }}
{{ $path }}.minReplicas: above maxReplicas, got {{ int $group.minReplicas }} and {{ int $group.maxReplicas }}; set minReplicas <= maxReplicas
{{- end }}
{{- if and $group.type (not (hasKey $known $group.type)) }}
{{ $path }}.accelerator.type: {{ $group.type | quote }} is not defined; one of: {{ keys $known | sortAlpha | join ", " }}
{{- end }}
{{- if not (or $group.type $group.pipelines) }}
{{ $path }}: hosts nothing; set accelerator, or pipelines: true, or enabled: false
{{- end }}
{{- if and $group.type (eq $group.image "serve") }}
{{ $path }}.image: serve has no vLLM for the models on {{ $group.type }}; set {{ eq $group.type "cpu" | ternary "vllmCpu" "vllm" }}
{{- end }}
{{- if and $group.nodePool (not (hasKey $pools $group.nodePool)) }}
{{ $path }}.nodePool: no such pool, got {{ $group.nodePool }}; defined: {{ keys $pools | sortAlpha | join ", " | default "none" }}
{{- end }}
{{- $gpus := dig "limits" "nvidia.com/gpu" 0 $group.resources | int }}
{{- if and (not (has $group.type (list "" "cpu"))) (ne $gpus (int $group.count)) }}
{{ $path }}.resources.limits: nvidia.com/gpu must be accelerator.count ({{ int $group.count }}), got {{ $gpus }}; set it, or leave resources out
{{- end }}
{{- $asked := 0 }}
{{- range $model := $.onRay }}
{{- if and (eq $model.group $name) (eq $model.accelerator.type $group.type) }}{{ $asked = add $asked $model.accelerators.least }}{{ end }}
{{- end }}
{{- $have := include "llm-serving.sharedAccelerators" (dict "name" $name "models" $.onRay "groups" $.groups) | int }}
{{- if gt (int $asked) $have }}
{{ $path }}.maxReplicas: the models' least replicas need {{ $asked }} x {{ $group.type }}, but workers of {{ int $group.count }} have {{ $have }} at most; raise maxReplicas or lower replicas.min
{{- end }}
{{- end }}
{{- if not $hosts }}
workerGroups: no enabled group has pipelines: true, so the gateway has no place; enable cpu or set it on another
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.nodePools" -}}
{{- range $name, $pool := include "llm-serving.nodePools" .root | fromYaml }}
{{- if not $pool.nodeClass }}
nodePools.{{ $name }}.nodeClass: missing; set an entry of nodeClasses or the name of an EC2NodeClass that exists
{{- end }}
{{- $least := 0 }}
{{- range $group, $settings := $.groups }}
{{- if and (eq $settings.nodePool $name) (not (has $settings.type (list "" "cpu"))) }}
{{- $asked := 0 }}
{{- range $.onRay }}
{{- if eq .group $group }}{{ $asked = add $asked .accelerators.least }}{{ end }}
{{- end }}
{{- $workers := divf $asked $settings.count | ceil | int | max $settings.minReplicas }}
{{- $least = add $least (mul $workers $settings.count) }}
{{- end }}
{{- end }}
{{- $limit := dig "limits" "nvidia.com/gpu" $least $pool | int }}
{{- if gt (int $least) $limit }}
nodePools.{{ $name }}.limits: the least workers of its groups have {{ $least }} GPUs, got nvidia.com/gpu {{ $limit }}; set {{ $least }} or more, or fewer replicas
{{- end }}
{{- end }}
{{- end -}}

{{- /* What pods ask for. Kubernetes would drop a key that it does not know, and refuse a quantity only at the install. */ -}}
{{- define "llm-serving.validate.resources" -}}
{{- $values := .root.Values }}
{{- $blocks := dict "head" $values.head.resources "redis" $values.redis.resources "milvus" $values.milvus.resources }}
{{- range $name, $group := .groups }}{{ $_ := set $blocks (printf "workerGroups.%s" $name) $group.resources }}{{ end }}
{{- range $owner, $resources := $blocks }}
{{- $path := printf "%s.resources" $owner }}
{{- range $key := without (keys $resources | sortAlpha) "requests" "limits" "claims" }}
{{ $path }}.{{ $key }}: not one of requests, limits and claims; set {{ $path }}.requests.{{ $key }}, or limits
{{- end }}
{{- range $bound := list "requests" "limits" }}
{{- range $resource, $quantity := get $resources $bound | default dict }}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$" (toString $quantity)) }}
{{ $path }}.{{ $bound }}.{{ $resource }}: not a quantity, got {{ $quantity }}; write it as Kubernetes does, for example 16Gi or 500m
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* KubeRay's rules for pods, checked on the finished templates: an overlay can break them. KubeRay would find out
only after the install, in a condition nobody waits for. */ -}}
{{- define "llm-serving.validate.podTemplates" -}}
{{- $cluster := include "llm-serving.rayCluster" .root | fromYaml }}
{{- $templates := dict "head" $cluster.headGroupSpec.template }}
{{- range $cluster.workerGroupSpecs }}{{ $_ := set $templates (printf "workerGroups.%s" .groupName) .template }}{{ end }}
{{- $port := int .root.Values.gateway.port }}
{{- range $owner, $template := $templates }}
{{- $path := printf "%s.podTemplate" $owner }}
{{- $ray := first $template.spec.containers }}
{{- if not (has ($template.spec.restartPolicy | default "") (list "" "Never")) }}
{{ $path }}.spec.restartPolicy: the Ray autoscaler needs Never, got {{ $template.spec.restartPolicy }}; leave it out
{{- end }}
{{- range $label, $_ := $template.metadata.labels }}
{{- if or (has $label (list "app.kubernetes.io/name" "app.kubernetes.io/created-by")) (hasPrefix "ray.io/" $label) }}
{{ $path }}.metadata.labels: KubeRay's Services select pods by {{ $label }}; take it out
{{- end }}
{{- end }}
{{- range $key, $_ := merge dict ($template.metadata.labels | default dict) ($template.metadata.annotations | default dict) }}
{{- if or (has $key (list "helm.sh/chart" "app.kubernetes.io/version")) (hasPrefix "checksum/" $key) }}
{{ $path }}.metadata: {{ $key }} changes with every release and each change rolls a new RayCluster; take it out
{{- end }}
{{- end }}
{{- range $ray.env }}
{{- if has .name (list "RAY_enable_autoscaler_v2" "RAY_REDIS_ADDRESS" "REDIS_PASSWORD" "REDIS_USERNAME") }}
{{ $path }}.spec.containers: KubeRay refuses {{ .name }} in the Ray container's env; take it out
{{- end }}
{{- end }}
{{- range $ray.ports }}
{{- if and (eq .name "serve") (ne (int .containerPort) $port) }}
{{ $path }}.spec.containers: the port named serve must be gateway.port ({{ $port }}), got {{ int .containerPort }}; take it out or set gateway.port
{{- end }}
{{- end }}
{{- $grace := $template.spec.terminationGracePeriodSeconds }}
{{- if and $grace (lt (int $grace) (int $.root.Values.maxDrainSeconds)) }}
{{ $path }}.spec.terminationGracePeriodSeconds: shorter than maxDrainSeconds ({{ int $.root.Values.maxDrainSeconds }}), got {{ int $grace }}; set more, or lower maxDrainSeconds
{{- end }}
{{- end }}
{{- end -}}

{{- /* The two ways in from outside, an Ingress and an HTTPRoute. */ -}}
{{- define "llm-serving.validate.ingress" -}}
{{- $values := .root.Values }}
{{- range $path, $way := dict "ingress" "Ingress" "httpRoute" "HTTPRoute" }}
{{- if (get $values $path).enabled }}
{{- if eq $values.security.auth "none" }}
{{ $path }}.enabled: security.auth none would let anyone on the network in; set security.auth to apiKeys or jwt
{{- end }}
{{- if eq $values.gateway.host "127.0.0.1" }}
gateway.host: 127.0.0.1 is reached from inside the pod only, and an {{ $way }} comes from outside; set 0.0.0.0
{{- end }}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.clients) }}
networkPolicy.clients: empty, so the {{ $way }}'s controller may not reach the gateway; set its namespace or its addresses
{{- end }}
{{- end }}
{{- end }}
{{- if $values.ingress.enabled }}
{{- with $values.ingress.host }}
{{- include "llm-serving.validate.host" (dict "path" "ingress.host" "host" .) }}
{{- else }}
ingress.host: missing; set the host clients call
{{- end }}
{{- end }}
{{- if $values.httpRoute.enabled }}
{{- if not $values.httpRoute.parentRefs }}
httpRoute.parentRefs: missing; set the Gateway it belongs to, for example [{name: public, namespace: gateways}]
{{- end }}
{{- range $values.httpRoute.hostnames }}
{{- include "llm-serving.validate.host" (dict "path" "httpRoute.hostnames" "host" .) }}
{{- else }}
httpRoute.hostnames: missing, so it would take the paths of every host of the Gateway; set [llm.example.com]
{{- end }}
{{- end }}
{{- end -}}

{{- /* A host as Kubernetes takes it. Scope: dict "path" "host". */ -}}
{{- define "llm-serving.validate.host" -}}
{{- if not (regexMatch "^(\\*\\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .host) }}
{{ .path }}: not a host, got {{ .host }}; set a name like llm.example.com, in lower case and without scheme, port and path
{{- end }}
{{- end -}}

{{- /* Who reaches the dashboard can run code in the pods. */ -}}
{{- define "llm-serving.validate.dashboard" -}}
{{- $values := .root.Values }}
{{- $ingress := $values.dashboard.ingress }}
{{- if $ingress.enabled }}
{{- if ne $values.security.ray.auth "token" }}
dashboard.ingress.enabled: without a token whoever finds the host could run code in the pods; set security.ray.auth to token
{{- end }}
{{- with $ingress.host }}
{{- include "llm-serving.validate.host" (dict "path" "dashboard.ingress.host" "host" .) }}
{{- else }}
dashboard.ingress.host: missing; set the host it is called by
{{- end }}
{{- if not $ingress.tls }}
dashboard.ingress.tls: missing, so the token would pass in the clear; set [{secretName: …, hosts: […]}], or [{hosts: […]}] where the controller has the certificate
{{- end }}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.dashboardClients) }}
networkPolicy.dashboardClients: empty, so the controller of dashboard.ingress may not reach the dashboard; set its namespace or its addresses
{{- end }}
{{- end }}
{{- end -}}

{{- /* Each Secret has a name, and comes from one place. */ -}}
{{- define "llm-serving.validate.secrets" -}}
{{- $security := .root.Values.security }}
{{- $blocks := dict "redis" .root.Values.redis "milvus" .root.Values.milvus }}
{{- range $key := list "apiKeys" "huggingFace" "internal" "ray" "tools" "upstreams" }}
{{- $_ := set $blocks (printf "security.%s" $key) (get $security $key) }}
{{- end }}
{{- range $name, $pipeline := .pipelines }}{{ $_ := set $blocks (printf "rag.%s.ingest" $name) ($pipeline.ingest | default dict) }}{{ end }}
{{- range $name, $job := include "llm-serving.batchJobs" .root | fromYaml }}{{ $_ := set $blocks (printf "batch.jobs.%s" $name) $job }}{{ end }}
{{- range $path, $block := $blocks }}
{{- if and $block.existingSecret (not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" $block.existingSecret)) }}
{{ $path }}.existingSecret: not the name of a Secret, got {{ $block.existingSecret }}; use lower-case letters, digits, dashes and dots
{{- end }}
{{- if and $block.existingSecret $block.externalKey }}
{{ $path }}.externalKey: existingSecret names a Secret already, got {{ $block.existingSecret }} and {{ $block.externalKey }}; keep one of the two
{{- else if and $block.externalKey (not $security.externalSecrets.store.name) }}
{{ $path }}.externalKey: there is no store to fetch {{ $block.externalKey }} from; set security.externalSecrets.store.name
{{- end }}
{{- end }}
{{- end -}}

{{- define "llm-serving.validate.redis" -}}
{{- $redis := .root.Values.redis }}
{{- $name := include "llm-serving.fullname" .root }}
{{- if and $redis.enabled $redis.address }}
redis.address: redis.enabled installs a Redis of the release's own, got {{ $redis.address }}; keep one of the two
{{- else if and $redis.address (not (regexMatch "^(rediss?://)?[^/:@]+:[0-9]+$" $redis.address)) }}
redis.address: not an address, got {{ regexReplaceAll ".*@" $redis.address "…@" }}; set host:port, redis://host:port or rediss://host:port, and the password in redis.existingSecret
{{- end }}
{{- range $key := list "existingSecret" "externalKey" }}
{{- if and (get $redis $key) (not $redis.address) }}
redis.{{ $key }}: opens the Redis at redis.address, and there is none; set redis.address or leave it out
{{- end }}
{{- end }}
{{- if and $redis.enabled (eq (len $name) 47) }}
fullnameOverride: with redis.enabled a name may have 46 characters, or labels of Redis' pod would be too long, got 47 ({{ $name }}); set a shorter fullnameOverride or release name
{{- end }}
{{- end -}}

{{- /* Where Milvus is, and what of its settings is not for a ConfigMap to say. */ -}}
{{- define "llm-serving.validate.milvus" -}}
{{- $milvus := .root.Values.milvus }}
{{- $name := include "llm-serving.fullname" .root }}
{{- if and $milvus.enabled $milvus.uri }}
milvus.uri: milvus.enabled installs a Milvus of the release's own, got {{ regexReplaceAll "//.*@" $milvus.uri "//…@" }}; keep one of the two
{{- else if and $milvus.uri (not (regexMatch "^https?://[^/:@]+(:[0-9]+)?$" $milvus.uri)) }}
milvus.uri: not an address, got {{ regexReplaceAll "//.*@" $milvus.uri "//…@" }}; set http(s)://host:port, and user and password in milvus.existingSecret
{{- end }}
{{- $asked := or $milvus.enabled $milvus.uri }}
{{- range .pipelines }}{{ if dig "vectorStore" "credential" "" . }}{{ $asked = true }}{{ end }}{{ end }}
{{- range $key := list "existingSecret" "externalKey" }}
{{- if and (get $milvus $key) (not $asked) }}
milvus.{{ $key }}: opens a Milvus, and there is none; set milvus.enabled or milvus.uri, or leave it out
{{- end }}
{{- end }}
{{- $security := dig "common" "security" dict $milvus.config }}
{{- if not (dig "authorizationEnabled" true $security) }}
milvus.config.common.security.authorizationEnabled: every pod that gets through would read and delete all documents, got false; leave it out
{{- end }}
{{- if hasKey $security "defaultRootPassword" }}
milvus.config.common.security.defaultRootPassword: it would stand in a ConfigMap; set milvus.existingSecret
{{- end }}
{{- if and $milvus.enabled (gt (len $name) 45) (lt (len $name) 48) }}
fullnameOverride: with milvus.enabled a name may have 45 characters, or labels of Milvus' pod would be too long, got {{ len $name }} ({{ $name }}); set a shorter fullnameOverride or release name
{{- end }}
{{- end -}}
