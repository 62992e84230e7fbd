{{- /* Renders the gateway's autoscaling_config, as JSON. Scope: the root. */ -}}
{{- define "llm-serving.gatewayAutoscaling" -}}
{{- $gateway := .Values.gateway }}
{{- include "llm-serving.autoscalingConfig" (dict "replicas" $gateway.replicas "autoscaling" $gateway.autoscaling "maxOngoing" $gateway.maxConcurrentRequests) }}
{{- end -}}

{{- /* Renders where the gateway's replicas share what they count, or nothing. Scope: the root. */ -}}
{{- define "llm-serving.gatewayRedis" -}}
{{- with include "llm-serving.redisConnection" . | fromYaml }}
{{- if $.Values.gateway.sharesRedis }}
{{- contains "://" .address | ternary "" "redis://" }}{{ .address }}/{{ int $.Values.gateway.redisDatabase }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders the gateway's routing table, its user_config: replaced in running replicas. Scope: the root. */ -}}
{{- define "llm-serving.routingTable" -}}
{{- $gateway := .Values.gateway -}}
models: {{- include "llm-serving.upstreams" . | nindent 2 }}
{{- if .Values.batch.enabled }}
batch: http://127.0.0.1:{{ int $gateway.port }}/internal/batch
{{- end }}
{{- with include "llm-serving.entries" (dict "entries" $gateway.routes) | fromJson }}
routes: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "llm-serving.entries" (dict "entries" $gateway.tenants) | fromJson }}
tenants: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "llm-serving.withoutNulls" ($gateway.otherTenants | default dict) | fromJson }}
otherTenants: {{- toYaml . | nindent 2 }}
{{- end }}
replicas: {{ (include "llm-serving.gatewayAutoscaling" . | fromJson).max_replicas | int }}
{{- end -}}

{{- /* Renders where every model, pipeline and agent answers, as YAML. Scope: the root. */ -}}
{{- define "llm-serving.upstreams" -}}
{{- include "llm-serving.once" (dict "root" . "key" "upstreams" "define" "llm-serving.allUpstreams" "scope" .) }}
{{- end -}}

{{- /* Works out what the define above renders. Scope: the root. */ -}}
{{- define "llm-serving.allUpstreams" -}}
{{- $base := printf "http://127.0.0.1:%d/internal" (int .Values.gateway.port) }}
{{- $gateways := (include "llm-serving.gatewayAutoscaling" . | fromJson).min_replicas | int | max 1 }}
{{- $upstreams := dict }}
{{- $standalone := include "llm-serving.standalone" . | fromJson }}
{{- range $name, $model := include "llm-serving.models" . | fromJson | merge (deepCopy $standalone) }}
{{- /* What all replicas of the model work on at its largest, split over the fewest gateways, and so never less than the
autoscaling must see to get there. */}}
{{- $most := mul $model.maxOngoingRequests $model.autoscalingConfig.max_replicas $model.parallelism.data }}
{{- $queue := dict "maxConcurrent" (divf $most $gateways | ceil | int) }}
{{- $upstream := dict
      "url" (printf "%s/%s" $base $name)
      "task" $model.task
      "queue" (mergeOverwrite $queue (include "llm-serving.withoutNulls" ($model.queue | default dict) | fromJson)) }}
{{- if hasKey $standalone $name }}
{{- $service := include "llm-serving.standaloneName" (dict "root" $ "name" $name) }}
{{- $upstream = mergeOverwrite $upstream (dict "runtime" "standalone" "url" (printf "http://%s:8000" $service)) }}
{{- end }}
{{- if eq "priority" (dig "extra" "scheduling_policy" "" $model.engine) }}{{ $_ := set $upstream "takesPriority" true }}{{ end }}
{{- with $model.price }}{{ $_ := set $upstream "price" . }}{{ end }}
{{- with dig "adapters" dict $model.lora }}
{{- $adapters := dict }}
{{- range $adapter, $entry := . }}{{ $_ := set $adapters $adapter (omit $entry "source") }}{{ end }}
{{- $_ := set $upstream "adapters" $adapters }}
{{- end }}
{{- if dig "directory" "" $model.lora }}{{ $_ := set $upstream "otherAdapters" true }}{{ end }}
{{- $_ := set $upstreams $name $upstream }}
{{- end }}
{{- range $name, $model := include "llm-serving.elsewhere" . | fromJson }}
{{- $_ := set $upstreams $name $model }}
{{- end }}
{{- range $name := include "llm-serving.pipelines" . | fromJson | keys }}
{{- $_ := set $upstreams $name (dict "url" (printf "%s/rag" $base) "task" "pipeline") }}
{{- end }}
{{- range $name := include "llm-serving.agents" . | fromJson | keys }}
{{- $_ := set $upstreams $name (dict "url" (printf "%s/agent" $base) "task" "agent") }}
{{- end }}
{{- toYaml $upstreams }}
{{- end -}}

{{- /* Renders what tokens cost by whom agents ask, as YAML: models, routes (at most: any of their models may answer) and
pipelines (their chat model's). Scope: the root. */ -}}
{{- define "llm-serving.prices" -}}
{{- $prices := dict }}
{{- range $name, $upstream := include "llm-serving.upstreams" . | fromYaml }}
{{- with $upstream.price }}{{ $_ := set $prices $name . }}{{ end }}
{{- end }}
{{- $routes := dict }}
{{- range $name, $route := include "llm-serving.entries" (dict "entries" .Values.gateway.routes) | fromJson }}
{{- $most := dict }}
{{- $behind := $route.fallback | default list }}
{{- range $route.versions }}{{ $behind = append $behind .model }}{{ end }}
{{- range $model := $behind }}
{{- range $kind, $price := get $prices $model | default dict }}
{{- $_ := set $most $kind (maxf (get $most $kind | default 0) $price) }}
{{- end }}
{{- end }}
{{- if $most }}{{ $_ := set $routes $name $most }}{{ end }}
{{- end }}
{{- $prices = mergeOverwrite $prices $routes }}
{{- range $name, $pipeline := include "llm-serving.pipelines" . | fromJson }}
{{- with get $prices $pipeline.llm }}{{ $_ := set $prices $name . }}{{ end }}
{{- end }}
{{- toYaml $prices }}
{{- end -}}
