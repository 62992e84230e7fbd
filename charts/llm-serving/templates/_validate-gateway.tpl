{{- /* Rules about the gateway: its routes, tenants and who may call. Scope of each: that of llm-serving.validate. */ -}}

{{- define "llm-serving.validate.gateway" -}}
{{- $gateway := .root.Values.gateway }}
{{- $config := include "llm-serving.gatewayAutoscaling" .root | fromJson }}
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
{{- $tenants := dict "gateway.otherTenants" (include "llm-serving.withoutNulls" ($gateway.otherTenants | default dict) | fromJson) }}
{{- range $name, $tenant := include "llm-serving.entries" (dict "entries" $gateway.tenants) | fromJson }}
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
{{- $jwt := include "llm-serving.withoutNulls" ($security.jwt | default dict) | fromJson }}
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
