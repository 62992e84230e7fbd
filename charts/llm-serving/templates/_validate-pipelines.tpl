{{- /* Rules about RAG pipelines, agents and batches. Scope of each: that of llm-serving.validate. */ -}}

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
{{- if and (eq (.executor | default "job") "ray-data") .schedule }}
rag.{{ $name }}.ingest.schedule: a RayJob runs once, got {{ .schedule }}; leave schedule out, or set executor to job
{{- end }}
{{- if and (ne (.executor | default "job") "ray-data") .workers }}
rag.{{ $name }}.ingest.workers: a Job is one pod, got {{ int .workers }}; leave workers out, or set executor to ray-data
{{- end }}
{{- if and (ne (.executor | default "job") "ray-data") .resources }}
rag.{{ $name }}.ingest.resources: those of workers, of which a Job has none; leave resources out, or set executor to ray-data
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
{{- $config := include "llm-serving.autoscalingConfig" (dict "replicas" $sizing.replicas "autoscaling" $sizing.autoscaling "maxOngoing" $sizing.maxOngoingRequests) | fromJson }}
{{- include "llm-serving.validate.autoscaling" (dict "path" "pipelines" "block" $sizing "config" $config "maxOngoing" $sizing.maxOngoingRequests "maxOngoingPath" "pipelines.maxOngoingRequests") }}
{{- $reading := $sizing.reading }}
{{- $readers := include "llm-serving.autoscalingConfig" (dict "replicas" $reading.replicas "autoscaling" $reading.autoscaling "maxOngoing" 2) | fromJson }}
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
{{- $pods := 0 }}
{{- range include "llm-serving.workerGroups" .root | fromJson }}{{ if .pipelines }}{{ $pods = add $pods .maxReplicas }}{{ end }}{{ end }}
{{- if and $batch.rayData.fromLines (hasPrefix "file://" $storage) (gt (int $pods) 1) }}
batch.rayData.fromLines: Ray Data sends from every pod of the pipelines, up to {{ $pods }}, and each has a folder {{ $storage }} of its own; set fromLines to 0, or storage to a bucket or a claim
{{- end }}
{{- $most := int64 .root.Values.gateway.maxUploadBytes }}
{{- if gt (int64 $batch.maxFileBytes) $most }}
batch.maxFileBytes: files come through the gateway, which takes {{ $most }} bytes, got {{ int64 $batch.maxFileBytes }}; set less, or raise gateway.maxUploadBytes
{{- end }}
{{- end }}
{{- end -}}

{{- /* Batches on accelerators of their own. */ -}}
{{- define "llm-serving.validate.batchJobs" -}}
{{- range $name, $job := include "llm-serving.batchJobs" .root | fromJson }}
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
