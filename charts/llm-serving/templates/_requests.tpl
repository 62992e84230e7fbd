{{- /* Renders the pods of the release, as YAML: by name, how many there are at `least` and at `most`, and what one of them
requests: `cpu` (cores), `memoryGi`, `gpu` of a `type`, on a node with `nodeGpus`. A group has the workers that its
models' replicas fill; one that hosts pipelines may grow for these, too. Clusters of batch.jobs and
of rag.<name>.ingest are there while these run, so at most. Scope: the root. */ -}}
{{- define "llm-serving.requests" -}}
{{- /* Beside the head KubeRay puts Ray's autoscaler, with 500m and 512Mi unless told otherwise. */}}
{{- $pods := dict "head" (dict "beside" (dict "cpu" 0.5 "memoryGi" 0.5) "least" 1 "most" 1 "resources" (include "llm-serving.head" . | fromJson).resources) }}
{{- $models := include "llm-serving.models" . | fromJson }}
{{- $groups := include "llm-serving.workerGroups" . | fromJson }}
{{- $filled := include "llm-serving.filledWorkers" (dict "models" $models "groups" $groups) | fromYaml }}
{{- range $name, $group := $groups }}
{{- $least := max (get $filled $name).least $group.minReplicas }}
{{- $most := max (get $filled $name).most $least }}
{{- if $group.pipelines }}{{ $most = $group.maxReplicas }}{{ end }}
{{- $_ := set $pods (printf "workerGroups.%s" $name) (dict "least" $least "most" $most "resources" $group.resources "group" $group) }}
{{- end }}
{{- range $name, $model := include "llm-serving.standalone" . | fromJson }}
{{- $share := dict "type" $model.accelerator.type "count" $model.accelerator.count "pipelines" false }}
{{- $config := $model.autoscalingConfig }}
{{- $_ := set $pods (printf "models.%s" $name) (dict "least" $config.min_replicas "most" $config.max_replicas "resources" (include "llm-serving.groupResources" $share | fromYaml) "group" (get $groups $model.group)) }}
{{- end }}
{{- range $name, $job := include "llm-serving.batchJobs" . | fromJson }}
{{- $group := get $groups $job.entry.group }}
{{- $workers := include "llm-serving.batchJobWorkers" (dict "job" $job "group" $group) | int }}
{{- $_ := set $pods (printf "batch.jobs.%s.head" $name) (dict "least" 0 "most" 1 "resources" (include "llm-serving.head" $ | fromJson).resources) }}
{{- $_ := set $pods (printf "batch.jobs.%s" $name) (dict "least" 0 "most" $workers "resources" $group.resources "group" $group) }}
{{- end }}
{{- range $name, $ingest := include "llm-serving.rayIngests" . | fromJson }}
{{- $_ := set $pods (printf "rag.%s.ingest.head" $name) (dict "least" 0 "most" 1 "resources" (include "llm-serving.head" $ | fromJson).resources) }}
{{- $_ := set $pods (printf "rag.%s.ingest" $name) (dict "least" 0 "most" (int $ingest.workers) "resources" $ingest.resources) }}
{{- end }}
{{- if .Values.redis.enabled }}
{{- $_ := set $pods "redis" (dict "least" 1 "most" 1 "resources" .Values.redis.resources) }}
{{- end }}
{{- if .Values.milvus.enabled }}
{{- $_ := set $pods "milvus" (dict "least" 1 "most" 1 "resources" .Values.milvus.resources) }}
{{- end }}
{{- range $name, $pod := $pods }}
{{ $name }}:
  least: {{ int $pod.least }}
  most: {{ int $pod.most }}
  cpu: {{ dig "requests" "cpu" "0" $pod.resources | toString | include "llm-serving.quantity" | float64 | addf (dig "beside" "cpu" 0.0 $pod) }}
  memoryGi: {{ divf (dig "requests" "memory" "0" $pod.resources | toString | include "llm-serving.quantity") 1073741824 | addf (dig "beside" "memoryGi" 0.0 $pod) }}
  {{- $gpus := dig "limits" "nvidia.com/gpu" 0 $pod.resources | int }}
  gpu: {{ $gpus }}
  type: {{ gt $gpus 0 | ternary (dig "group" "type" "" $pod) "" | quote }}
  nodeGpus: {{ gt $gpus 0 | ternary (dig "group" "count" 0 $pod) 0 | int }}
{{- end }}
{{- end -}}

{{- /* Renders a quantity of Kubernetes' as a plain number. Scope: the quantity, as a string. */ -}}
{{- define "llm-serving.quantity" -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := regexFind "[A-Za-z]+$" . }}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit | default 1) }}
{{- end -}}

{{- /* Renders what all pods of the release request together, in words: at least, and at most. Scope: the root. */ -}}
{{- define "llm-serving.requestsInWords" -}}
{{- $pods := include "llm-serving.requests" . | fromYaml }}
{{- range $bound := list "least" "most" -}}
{{- $cpu := 0.0 }}{{ $memory := 0.0 }}{{ $gpu := 0 }}
{{- range $pods }}
{{- $cpu = addf $cpu (mulf (get . $bound) .cpu) }}
{{- $memory = addf $memory (mulf (get . $bound) .memoryGi) }}
{{- $gpu = add $gpu (mul (get . $bound) .gpu) }}
{{- end }}
  at {{ $bound }} {{ round $cpu 1 }} CPUs, {{ ceil $memory }} GiB of memory, {{ $gpu }} GPUs
{{- end }}
{{- end -}}
