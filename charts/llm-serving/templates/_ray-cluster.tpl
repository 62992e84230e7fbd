{{- /* Renders rayClusterConfig: the head and one worker group per enabled entry of workerGroups. Nothing in it depends
on models or pipelines, so changing those never rolls the cluster. Scope: the root. */ -}}
{{- define "llm-serving.rayCluster" -}}
{{- include "llm-serving.once" (dict "root" . "key" "rayCluster" "define" "llm-serving.rayClusterConfig" "scope" .) }}
{{- end -}}

{{- /* Works out what the define above renders. Scope: the root. */ -}}
{{- define "llm-serving.rayClusterConfig" -}}
rayVersion: {{ .Values.rayVersion | quote }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  securityContext: {{- include "llm-serving.containerSecurity" . | nindent 4 }}
  # A volume of the head's: the sidecar's root is read-only too.
  volumeMounts:
  - {name: temporary, mountPath: /tmp}
{{- with include "llm-serving.redisConnection" . | fromYaml }}
gcsFaultToleranceOptions:
  redisAddress: {{ .address }}
  {{- with .secret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ . }}, key: password}
  {{- end }}
{{- end }}
{{- if eq .Values.security.ray.auth "token" }}
authOptions: {mode: token, secretName: {{ include "llm-serving.rayTokenSecret" . }}}
{{- end }}
headGroupSpec:
  serviceType: ClusterIP
  rayStartParams:
    # No replica and no task runs on the head.
    num-cpus: "0"
    {{- include "llm-serving.rayStartParams" . | nindent 4 }}
  template: {{- include "llm-serving.podTemplate" (dict "root" . "role" "head" "spec" (include "llm-serving.head" . | fromJson)) | nindent 4 }}
workerGroupSpecs:
{{- $groups := include "llm-serving.workerGroups" . | fromJson }}
{{- range $name := include "llm-serving.groupOrder" $groups | fromYamlArray }}
{{- $group := get $groups $name }}
- groupName: {{ $name }}
  minReplicas: {{ int $group.minReplicas }}
  maxReplicas: {{ int $group.maxReplicas }}
  idleTimeoutSeconds: {{ int $group.idleTimeoutSeconds }}
  rayStartParams: {{- include "llm-serving.rayStartParams" $ | nindent 4 }}
  labels: {{- toYaml $group.labels | nindent 4 }}
  template: {{- include "llm-serving.podTemplate" (dict "root" $ "role" "worker" "name" $name "spec" $group) | nindent 4 }}
{{- end }}
{{- end -}}

{{- /* Renders what every node's `ray start` is told, as YAML. Scope: none. */ -}}
{{- define "llm-serving.rayStartParams" -}}
# A process in every pod that reads all logs, for drivers that print what their workers do; ours do not.
# KubeRay leaves out what is "false".
include-log-monitor: "0"
{{- end -}}

{{- /* Renders the names of the groups in the order they are appended to the cluster, as YAML.
Scope: llm-serving.workerGroups. */ -}}
{{- define "llm-serving.groupOrder" -}}
{{- $keys := list }}
{{- range $name, $group := . }}
{{- $keys = append $keys (printf "%09d/%s" (int $group.order) $name) }}
{{- end }}
{{- range sortAlpha $keys }}
- {{ splitList "/" . | last }}
{{- end }}
{{- end -}}

{{- /* Renders the head with every default filled in, as JSON. Scope: the root. */ -}}
{{- define "llm-serving.head" -}}
{{- $defaults := dict
      "image" "serve"
      "pipelines" false
      "type" ""
      "tolerations" list
      "nodeSelector" dict
      "priorityClassName" ""
      "cacheClaim" ""
      "modelClaims" list
      "modelImages" list
      "podTemplate" dict }}
{{- toJson (mergeOverwrite $defaults (include "llm-serving.withoutNulls" .Values.head | fromJson)) }}
{{- end -}}

{{- /* Renders the enabled worker groups with every default filled in, as JSON. `type` and `count` are the accelerator's
("" and 0 without one), `profile` names both, `labels` are Ray's. Scope: the root. */ -}}
{{- define "llm-serving.workerGroups" -}}
{{- include "llm-serving.once" (dict "root" . "key" "workerGroups" "define" "llm-serving.enabledWorkerGroups" "scope" .) }}
{{- end -}}

{{- /* Works out what the define above renders. Scope: the root. */ -}}
{{- define "llm-serving.enabledWorkerGroups" -}}
{{- $groups := dict }}
{{- range $name, $entry := include "llm-serving.entries" (dict "entries" .Values.workerGroups) | fromJson }}
{{- $group := mergeOverwrite (dict
      "order" 1000
      "pipelines" false
      "minReplicas" 0
      "maxReplicas" 1
      "idleTimeoutSeconds" 300
      "nodeSelector" dict
      "tolerations" list
      "priorityClassName" ""
      "cacheClaim" ""
      "modelClaims" list
      "modelImages" list
      "nodePool" ""
      "podTemplate" dict
    ) $entry }}
{{- $accelerator := include "llm-serving.withoutNulls" ($group.accelerator | default dict) | fromJson }}
{{- $type := $accelerator.type | default "" }}
{{- $count := empty $type | ternary 0 ($accelerator.count | default 1) | int }}
{{- $onGpu := not (has $type (list "" "cpu")) }}
{{- $profile := $onGpu | ternary (printf "%s-x%d" $type $count) $type }}
{{- $labels := dict "llm-serving/worker-group" $name }}
{{- if $group.pipelines }}{{ $_ := set $labels "llm-serving/role" "pipelines" }}{{ end }}
{{- if $type }}{{ $_ := set $labels "llm-serving/accelerator" $profile }}{{ end }}
{{- $image := $onGpu | ternary "vllm" (empty $type | ternary "serve" "vllmCpu") }}
{{- $group = mergeOverwrite (dict "image" $image) $group (dict
      "type" $type
      "count" $count
      "profile" $profile
      "labels" $labels
      "nodeSelector" (include "llm-serving.groupNodeSelector" $group | fromJson)
      "tolerations" (include "llm-serving.groupTolerations" (dict "root" $ "group" $group "onGpu" $onGpu) | fromJsonArray)
    ) }}
{{- if not $group.resources }}
{{- $_ := set $group "resources" (include "llm-serving.groupResources" $group | fromYaml) }}
{{- end }}
{{- $_ := set $groups $name $group }}
{{- end }}
{{- toJson $groups }}
{{- end -}}

{{- /* Renders a group's node selector, its node pool's included, as JSON. Scope: the group. */ -}}
{{- define "llm-serving.groupNodeSelector" -}}
{{- $selector := include "llm-serving.withoutNulls" .nodeSelector | fromJson }}
{{- with .nodePool }}{{ $_ := set $selector "karpenter.sh/nodepool" . }}{{ end }}
{{- toJson $selector }}
{{- end -}}

{{- /* Renders a group's tolerations, as JSON: its own, the usual GPU taint's, those of its node pool's taints.
Scope: dict "root" $ "group" (the group) "onGpu" (whether its accelerator is a GPU). */ -}}
{{- define "llm-serving.groupTolerations" -}}
{{- $tolerations := list }}
{{- if .onGpu }}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- $pools := include "llm-serving.nodePools" .root | fromJson }}
{{- range dig .group.nodePool "taints" list $pools }}
{{- $tolerations = append $tolerations (dict "key" .key "operator" "Exists" "effect" .effect) }}
{{- end }}
{{- toJson (concat $tolerations .group.tolerations | uniq) }}
{{- end -}}

{{- /* Renders a group's resources, as YAML: the accelerators' share of a node and, where it hosts the gateway and the
pipelines, theirs. CPU has no limit: throttling would stall every stream of the node.
Scope: the group, with `type` and `count`. */ -}}
{{- define "llm-serving.groupResources" -}}
{{- $share := get (include "llm-serving.accelerators" . | fromYaml) .type | default (dict "cpu" 0 "memoryGi" 0) }}
{{- $cpu := add (mul $share.cpu .count) (.pipelines | ternary 3 0) | max 1 }}
{{- $memory := printf "%dGi" (add (mul $share.memoryGi .count) (.pipelines | ternary 10 0) | max 2) -}}
requests:
  cpu: {{ $cpu | quote }}
  memory: {{ $memory }}
limits:
  memory: {{ $memory }}
  {{- if not (has .type (list "" "cpu")) }}
  nvidia.com/gpu: {{ .count | quote }}
  {{- end }}
{{- end -}}
