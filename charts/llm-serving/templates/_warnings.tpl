{{- /* Renders one [WARNING] line for everything that is allowed and unusual, for NOTES.txt. Scope: the root. */ -}}
{{- define "llm-serving.warnings" -}}
{{- $models := include "llm-serving.models" . | fromJson }}
{{- if eq .Values.security.auth "none" }}
[WARNING] security.auth is none: everyone who reaches the gateway may use it. For laptops only; set apiKeys.
{{- else if and (eq .Values.security.auth "apiKeys") (not (or .Values.security.apiKeys.existingSecret .Values.security.apiKeys.externalKey)) }}
[WARNING] security.apiKeys.existingSecret is empty: the chart made the key `admin`. Note it, then delete the Secret {{ include "llm-serving.initialKeySecret" . }}; the gateway keeps only its hash.
{{- end }}
{{- if eq .Values.security.ray.auth "none" }}
[WARNING] security.ray.auth is none: whoever reaches Ray's dashboard or GCS can run code in the pods. Set token.
{{- end }}
{{- if not .Values.networkPolicy.enabled }}
[WARNING] networkPolicy.enabled is false: every pod of the Kubernetes cluster reaches every port of the release's.
{{- end }}
{{- $standalone := include "llm-serving.standalone" . | fromJson }}
{{- if not (or $models $standalone (include "llm-serving.elsewhere" . | fromJson)) }}
[WARNING] models is empty: the gateway answers, and knows no model. Start from a preset in values/.
{{- end }}
{{- range $name, $model := merge (dict) $models $standalone }}
{{- if $model.engine.trust_remote_code }}
[WARNING] models.{{ $name }}.engine.trust_remote_code runs code that comes with the weights.
{{- end }}
{{- if and (hasPrefix "hf://" $model.source) (not (contains "@" $model.source)) }}
[WARNING] models.{{ $name }}.source names no revision: replicas may start with different weights. Add @<commit>.
{{- end }}
{{- end }}
{{- $kubernetes := .Capabilities.KubeVersion }}
{{- if semverCompare "<1.35.0-0" $kubernetes.Version }}
{{- range include "llm-serving.imageVolumes" . | fromYamlArray }}
[WARNING] {{ . }}: Kubernetes {{ $kubernetes.Major }}.{{ $kubernetes.Minor }} drops image volumes without a word unless its feature gate ImageVolume is on. Turn it on, for the API server and the kubelets, or upgrade to 1.35.
{{- end }}
{{- end }}
{{- $groups := include "llm-serving.workerGroups" . | fromJson }}
{{- range $name, $group := $groups }}
{{- $most := 0 }}
{{- range $model := $models }}
{{- if and (eq $model.group $name) (eq $model.accelerator.type $group.type) }}{{ $most = add $most $model.accelerators.most }}{{ end }}
{{- end }}
{{- $have := include "llm-serving.sharedAccelerators" (dict "name" $name "models" $models "groups" $groups) | int }}
{{- if gt (int $most) $have }}
[WARNING] workerGroups.{{ $name }}: its models may grow to {{ $most }} x {{ $group.type }}, its workers have {{ $have }} at most. Raise maxReplicas or lower the models' replicas.max.
{{- end }}
{{- end }}
{{- range $name, $class := include "llm-serving.entries" (dict "entries" .Values.nodeClasses) | fromJson }}
{{- range $class.spec.blockDeviceMappings }}
{{- if not (dig "ebs" "encrypted" false .) }}
[WARNING] nodeClasses.{{ $name }}.spec.blockDeviceMappings: {{ .deviceName }} is not encrypted unless the account does so by itself. Set ebs.encrypted to true.
{{- end }}
{{- end }}
{{- if ne "required" (dig "metadataOptions" "httpTokens" "required" $class.spec) }}
[WARNING] nodeClasses.{{ $name }}.spec.metadataOptions.httpTokens: without tokens a pod may be tricked into telling its node's credentials. Set required.
{{- end }}
{{- end }}
{{- $pipelines := include "llm-serving.pipelines" . | fromJson }}
{{- if and .Values.milvus.enabled (not (contains (printf "//%s:" (include "llm-serving.milvusName" .)) (toJson $pipelines))) }}
[WARNING] milvus.enabled: no pipeline uses it. Set it to false, or leave out a pipeline's vectorStore.uri.
{{- end }}
{{- range $name, $pipeline := $pipelines }}
{{- if and (hasSuffix ".db" (dig "vectorStore" "uri" "" $pipeline)) (not $.Values.pipelines.dataClaim) }}
[WARNING] rag.{{ $name }}.vectorStore.uri is a file in the pod: its documents go with the pod. Use a Milvus server for what must stay, or set pipelines.dataClaim.
{{- end }}
{{- end }}
{{- $onClaim := and .Values.pipelines.dataClaim (hasPrefix "file:///var/lib/llm-serving/" .Values.batch.storage) }}
{{- if and .Values.batch.enabled (hasPrefix "file://" .Values.batch.storage) (not $onClaim) }}
[WARNING] batch.storage is a folder in the pod: files and batches go with the pod. Use a bucket or pvc://claim/path for what must stay.
{{- end }}
{{- include "llm-serving.gatewayWarnings" . }}
{{- end -}}

{{- /* Renders the lines about releases and tenants. Scope: the root. */ -}}
{{- define "llm-serving.gatewayWarnings" -}}
{{- $alone := empty (include "llm-serving.gatewayRedis" .) }}
{{- $gateways := (include "llm-serving.gatewayAutoscaling" . | fromJson).max_replicas | int }}
{{- range $name, $route := include "llm-serving.entries" (dict "entries" .Values.gateway.routes) | fromJson }}
{{- $sum := 0.0 }}
{{- range $route.versions }}{{ $sum = addf $sum (dig "weight" 100 . | float64) }}{{ end }}
{{- if and (gt (len $route.versions) 1) (ne $sum 100.0) }}
[WARNING] gateway.routes.{{ $name }}.versions: the weights add up to {{ $sum }}, not 100; each counts relative to that sum.
{{- end }}
{{- if and $route.canary $alone (gt $gateways 1) }}
[WARNING] gateway.routes.{{ $name }}.canary: without a Redis each of up to {{ $gateways }} gateways judges by what it saw itself. Set redis, or gateway.replicas.max to 1.
{{- end }}
{{- end }}
{{- $priced := false }}
{{- range include "llm-serving.upstreams" . | fromYaml }}{{ if .price }}{{ $priced = true }}{{ end }}{{ end }}
{{- $budgets := list }}
{{- if (.Values.gateway.otherTenants | default dict).monthlyBudget }}{{ $budgets = append $budgets "gateway.otherTenants" }}{{ end }}
{{- range $name, $tenant := include "llm-serving.entries" (dict "entries" .Values.gateway.tenants) | fromJson }}
{{- if $tenant.monthlyBudget }}{{ $budgets = append $budgets (printf "gateway.tenants.%s" $name) }}{{ end }}
{{- end }}
{{- range $budgets }}
{{- if not $priced }}
[WARNING] {{ . }}.monthlyBudget: no model has a price, so nothing is ever spent. Set models.<name>.price.
{{- else if $alone }}
[WARNING] {{ . }}.monthlyBudget: without a Redis a gateway that restarts forgets what was spent. Set redis.
{{- end }}
{{- end }}
{{- end -}}
