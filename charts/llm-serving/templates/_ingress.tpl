{{- /* Renders an Ingress up to its paths, which follow. Scope: dict "root" $ "name" (its name) "values" (its block). */ -}}
{{- define "llm-serving.ingress" }}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .name }}
  labels: {{- include "llm-serving.labels" .root | nindent 4 }}
  {{- with .values.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .values.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with .values.tls }}
  tls: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - host: {{ .values.host | quote }}
      http:
        paths:
{{- end -}}

{{- /* Renders what anybody outside may ask for, as YAML: the public API (vLLM has some of it outside /v1) and the health
of the whole, nothing else. /internal is for the applications. Scope: the root. */ -}}
{{- define "llm-serving.publicPaths" -}}
exact: [/detokenize, /healthz, /rerank, /score, /tokenize, /v2/rerank{{ if .Values.gateway.playground }}, /{{ end }}]
prefixes: [/v1{{ if .Values.gateway.playground }}, /playground{{ end }}]
{{- end -}}
