{{- /* Renders what OpenTelemetry reads of the environment, as YAML; nothing without a collector. Callers decide what is
traced, and the ratio counts where nobody called. Scope: dict "root" $ "service" (as traces name it). */ -}}
{{- define "llm-serving.tracingEnvironment" -}}
{{- with .root.Values.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . }}
# vLLM takes gRPC else.
OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: http/protobuf
OTEL_SERVICE_NAME: {{ $.service }}
OTEL_TRACES_SAMPLER: parentbased_traceidratio
OTEL_TRACES_SAMPLER_ARG: {{ toString $.root.Values.tracing.sampleRatio | quote }}
{{- end }}
{{- end -}}

{{- /* Renders the address to which vLLM sends its spans; nothing without a collector. Scope: the root. */ -}}
{{- define "llm-serving.tracesUrl" -}}
{{- with .Values.tracing.endpoint }}{{ . }}/v1/traces{{ end }}
{{- end -}}

{{- /* Renders the rule that lets pods reach a collector in the cluster, where their egress is bounded, as a list; empty
without a collector. Scope: the root. */ -}}
{{- define "llm-serving.tracingRule" -}}
{{- with .Values.tracing.endpoint }}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default (hasPrefix "https:" . | ternary 443 80) -}}
- to: [{namespaceSelector: {}}]
  ports: [{protocol: TCP, port: {{ $port }}}]
{{- end }}
{{- end -}}
