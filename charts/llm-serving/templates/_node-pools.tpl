{{- /* Renders the enabled NodePools with the seed's defaults filled in, as JSON: GPU nodes of three families, on demand
or spot, tainted for GPU pods, given back five minutes after they idle. Scope: the root. */ -}}
{{- define "llm-serving.nodePools" -}}
{{- $pools := dict }}
{{- range $name, $entry := include "llm-serving.entries" (dict "entries" .Values.nodePools) | fromJson }}
{{- $defaults := include "llm-serving.nodePoolDefaults" $name | fromYaml }}
{{- /* A block replaces its default as a whole: limits on cpu must not keep a limit on GPUs beside them. */}}
{{- range $key, $value := $entry }}{{ $_ := set $defaults $key $value }}{{ end }}
{{- $_ := set $pools $name $defaults }}
{{- end }}
{{- toJson $pools }}
{{- end -}}

{{- /* Renders what a NodePool says where its entry says nothing. Scope: none. */ -}}
{{- define "llm-serving.nodePoolDefaults" -}}
requirements:
- {key: karpenter.k8s.aws/instance-family, operator: In, values: [g6e, g5, p4d]}
- {key: kubernetes.io/arch, operator: In, values: [amd64]}
- {key: karpenter.sh/capacity-type, operator: In, values: [on-demand, spot]}
taints:
- {key: nvidia.com/gpu, value: "true", effect: NoSchedule}
limits:
  nvidia.com/gpu: 100
disruption:
  consolidationPolicy: WhenEmptyOrUnderutilized
  consolidateAfter: 5m
{{- end -}}
