{{- /* Fails with every rule that is broken, one line each: `path: problem, got value; what to set`. Rules one key
breaks by itself are the schema's. Each subject has a define, here or in the file _validate-<of what>.tpl, that renders its
lines. Scope: the root. */ -}}
{{- define "llm-serving.validate" -}}
{{- $onRay := include "llm-serving.models" . | fromJson }}
{{- $standalone := include "llm-serving.standalone" . | fromJson }}
{{- $groups := include "llm-serving.workerGroups" . | fromJson }}
{{- $pipelines := include "llm-serving.pipelines" . | fromJson }}
{{- $agents := include "llm-serving.agents" . | fromJson }}
{{- $routes := include "llm-serving.entries" (dict "entries" .Values.gateway.routes) | fromJson }}
{{- $scope := dict
      "root" .
      "models" (merge (dict) $onRay $standalone)
      "onRay" $onRay
      "standalone" $standalone
      "elsewhere" (include "llm-serving.elsewhere" . | fromJson)
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

{{- /* Bounds and target of one block that scales.
Scope: dict "path" "block" (with replicas and autoscaling) "config" (as rendered) "maxOngoing" and its "maxOngoingPath". */ -}}
{{- define "llm-serving.validate.autoscaling" -}}
{{- $path := .path }}
{{- $replicas := include "llm-serving.withoutNulls" (.block.replicas | default dict) | fromJson }}
{{- $autoscaling := include "llm-serving.withoutNulls" (.block.autoscaling | default dict) | fromJson }}
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
{{- $pools := include "llm-serving.nodePools" .root | fromJson }}
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
{{- range $name, $pool := include "llm-serving.nodePools" .root | fromJson }}
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
{{- if not $values.dashboard.auth }}
dashboard.auth: missing; set controller, and in dashboard.ingress.annotations how it authenticates callers, or token where only a private network reaches the host
{{- else if eq $values.dashboard.auth "controller" }}
{{- $asks := false }}
{{- range $key, $value := $ingress.annotations }}
{{- if and (regexMatch "/(auth-|oauth|.*middlewares$)" $key) (ne $value "none") }}{{ $asks = true }}{{ end }}
{{- if and (hasSuffix "/auth-type" $key) (regexMatch "^(basic|digest)" $value) }}
dashboard.ingress.annotations: Ray looks for its token in the header of {{ $value }} authentication and would refuse everybody, got {{ $key }}: {{ $value }}; set an identity provider or client certificates, for example nginx.ingress.kubernetes.io/auth-url
{{- end }}
{{- end }}
{{- if not $asks }}
dashboard.ingress.annotations: none has the controller authenticate callers; set for example nginx.ingress.kubernetes.io/auth-url, alb.ingress.kubernetes.io/auth-type or traefik.ingress.kubernetes.io/router.middlewares, or dashboard.auth to token
{{- end }}
{{- end }}
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
{{- range $name, $job := include "llm-serving.batchJobs" .root | fromJson }}{{ $_ := set $blocks (printf "batch.jobs.%s" $name) $job }}{{ end }}
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
