{{- /* Renders the labels of all Ray pods of the release; KubeRay sets the second, also on the job that empties Redis.
Scope: the root. */ -}}
{{- define "llm-serving.rayPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
ray.io/is-ray-node: "yes"
{{- end -}}

{{- /* Renders the NetworkPolicyPeer of the pods that host gateways, as YAML. Scope: the root. */ -}}
{{- define "llm-serving.gatewayPeer" -}}
{{- $groups := list }}
{{- range $group, $entry := include "llm-serving.workerGroups" . | fromJson }}
{{- if $entry.pipelines }}{{ $groups = append $groups $group }}{{ end }}
{{- end -}}
podSelector:
  matchLabels: {{- include "llm-serving.rayPods" . | nindent 4 }}
  matchExpressions:
  - {key: ray.io/group, operator: In, values: {{ toJson $groups }}}
{{- end -}}

{{- /* Renders the labels of the pod with Redis. Scope: the root. */ -}}
{{- define "llm-serving.redisPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end -}}

{{- /* Renders the labels of the pod with Milvus. Scope: the root. */ -}}
{{- define "llm-serving.milvusPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: milvus
{{- end -}}

{{- /* Renders the labels of the pod that `helm test` starts. Scope: the root. */ -}}
{{- define "llm-serving.testPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{- /* Renders the labels of the pods that hold images on their nodes. Scope: the root. */ -}}
{{- define "llm-serving.pullPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: pull
{{- end -}}

{{- /* Renders a rule that lets peers reach ports. Nothing without peers: to Kubernetes, a rule for no one in particular
is a rule for everyone. Scope: dict "peers" (NetworkPolicyPeers) "ports" (their numbers). */ -}}
{{- define "llm-serving.ingressRule" -}}
{{- if .peers }}
- from: {{- toYaml .peers | nindent 2 }}
  ports:
  {{- range .ports }}
  - {protocol: TCP, port: {{ int . }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Renders the rule that lets pods look up names. To anywhere: a node's own cache has an address that no selector
knows. Scope: none. */ -}}
{{- define "llm-serving.dnsRule" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- end -}}
