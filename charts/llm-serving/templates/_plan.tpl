{{- /* Renders the cheapest node of plan.yaml that pods fit, with as many GPUs as they are sent to, as YAML: `usd` an hour,
`networkGbit`, and the `room` it has for them; nothing if there is none. tools/plan/nodes.py counts alike.
Scope: dict "pods" (of llm-serving.requests) "table" (of plan.yaml). */ -}}
{{- define "llm-serving.plannedNode" -}}
{{- $pods := .pods }}
{{- $reserved := .table.reserved }}
{{- $best := dict }}
{{- range $node := .table.instances }}
{{- if and (eq ($node.gpu | default "") $pods.type) (eq (int $node.gpus) (int $pods.nodeGpus)) }}
{{- /* The kubelet's own limit of pods. */}}
{{- $room := 110.0 }}
{{- if $pods.cpu }}{{ $room = minf $room (divf (subf $node.cpu $reserved.cpu) $pods.cpu) }}{{ end }}
{{- if $pods.memoryGi }}{{ $room = minf $room (divf (mulf $node.memoryGi (subf 1 $reserved.memoryShare)) $pods.memoryGi) }}{{ end }}
{{- if $pods.gpu }}{{ $room = minf $room (divf $node.gpus $pods.gpu) }}{{ end }}
{{- if and (ge $room 1.0) (or (not $best) (lt $node.usd $best.usd)) }}
{{- $best = dict "usd" $node.usd "networkGbit" $node.networkGbit "room" (gt (int $pods.gpu) 0 | ternary (floor $room) 1.0) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $best }}{{ toYaml $best }}{{ end }}
{{- end -}}

{{- /* Renders what the nodes of all pods cost an hour on AWS, at least and at most, in a sentence. Scope: the root. */ -}}
{{- define "llm-serving.costInWords" -}}
{{- $table := .Files.Get "plan.yaml" | fromYaml }}
{{- $sums := dict "least" 0.0 "most" 0.0 }}
{{- $lacking := list }}
{{- range $name, $pods := include "llm-serving.requests" . | fromYaml }}
{{- if gt (int $pods.most) 0 }}
{{- $node := include "llm-serving.plannedNode" (dict "pods" $pods "table" $table) | fromYaml }}
{{- if $node }}
{{- range $bound := list "least" "most" }}
{{- $_ := set $sums $bound (divf (get $pods $bound) $node.room | ceil | mulf $node.usd | addf (get $sums $bound)) }}
{{- end }}
{{- else }}
{{- $lacking = append $lacking $name }}
{{- end }}
{{- end }}
{{- end }}
{{- printf "On AWS, on demand, %.2f to %.2f dollars an hour" $sums.least $sums.most }}
{{- with $lacking }}, without {{ join ", " . }}, which fit none of its nodes{{ end }} (`make plan` says of what).
{{- end -}}

{{- /* Renders how long a model takes from nothing to its first answer after a plain install, in a sentence.
Scope: dict "root" $ "model" "pods" (its name in llm-serving.requests) "weightsGb". */ -}}
{{- define "llm-serving.startInWords" -}}
{{- $table := .root.Files.Get "plan.yaml" | fromYaml }}
{{- $pods := get (include "llm-serving.requests" .root | fromYaml) .pods }}
{{- $node := include "llm-serving.plannedNode" (dict "pods" $pods "table" $table) | fromYaml }}
{{- $network := divf ($node.networkGbit | default 1e9) 8 }}
{{- $sum := 0.0 }}
{{- $stages := list }}
{{- range $stage := list "node" "image" "process" "weights" "compile" "graphs" }}
{{- if not (and (has $stage (list "compile" "graphs")) $.model.engine.enforce_eager) }}
{{- $figures := get $table.start $stage }}
{{- $seconds := $figures.coldS | default 0.0 }}
{{- if eq $stage "weights" }}
{{- $rate := get $figures.coldGbPerS (splitList "://" $.model.source | first) | default 0.33 }}
{{- $seconds = divf $.weightsGb (minf $rate $network) }}
{{- else if $figures.gb }}
{{- $seconds = divf $figures.gb $figures.coldGbPerS }}
{{- end }}
{{- $sum = addf $sum $seconds }}
{{- $stages = append $stages (printf "%s %.0f" $stage (float64 $seconds)) }}
{{- end }}
{{- end }}
{{- printf "%.0f s from nothing to the first answer: %s" $sum (join ", " $stages) }}
{{- end -}}
