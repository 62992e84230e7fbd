{{- /* Renders the enabled jobs with every default filled in, as JSON; `entry` is the model (of llm-serving.models or
llm-serving.standalone), of which there is none if the rules are broken. Scope: the root. */ -}}
{{- define "llm-serving.batchJobs" -}}
{{- $jobs := include "llm-serving.entries" (dict "entries" .Values.batch.jobs) | fromJson }}
{{- if $jobs }}
{{- $models := merge (dict) (include "llm-serving.models" . | fromJson) (include "llm-serving.standalone" . | fromJson) }}
{{- range $name, $job := $jobs }}
{{- $_ := set $jobs $name (mergeOverwrite (dict "model" "" "input" "" "output" "" "replicas" 1 "concurrency" 256) $job (dict "entry" (get $models $job.model | default dict))) }}
{{- end }}
{{- end }}
{{- toJson $jobs }}
{{- end -}}

{{- /* Renders the name of a job's RayJob. What has run does not run again: only a job that asks something else has another
name. Scope: dict "root" $ "name" (the job's) "job" (of llm-serving.batchJobs). */ -}}
{{- define "llm-serving.batchJobName" -}}
{{- /* 47: KubeRay's limit. */}}
{{- $digest := list .name .job.input .job.output .job.entry.source | toJson | sha256sum | trunc 8 -}}
{{ printf "%s-batch" (include "llm-serving.fullname" .root) | trunc 38 | trimSuffix "-" }}-{{ $digest }}
{{- end -}}

{{- /* Renders the labels of the pods of all jobs. Not those of the release's other Ray pods, whose budgets and rules are
not for them. Scope: the root. */ -}}
{{- define "llm-serving.batchPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}-batch
ray.io/is-ray-node: "yes"
{{- end -}}

{{- /* Renders how many workers the replicas of a job fill. Scope: dict "job" (of llm-serving.batchJobs) "group" (its
model's, of llm-serving.workerGroups). */ -}}
{{- define "llm-serving.batchJobWorkers" -}}
{{- divf (mul .job.replicas .job.entry.devices) .group.count | ceil }}
{{- end -}}

{{- /* Renders where a job's places are in its pods: a claim is a folder to them. Scope: the place. */ -}}
{{- define "llm-serving.batchJobPlace" -}}
{{ hasPrefix "pvc://" . | ternary (printf "file:///mnt/batch/%s" (trimPrefix "pvc://" .)) . }}
{{- end -}}

{{- /* Renders a job's RayJob: its spec. Scope: as llm-serving.batchJobName. */ -}}
{{- define "llm-serving.batchJob" -}}
{{- $root := .root }}
{{- $job := .job }}
{{- $model := mergeOverwrite (dict) $job.entry (dict
      "maxOngoingRequests" $job.concurrency
      "maxQueuedRequests" -1
      "autoscalingConfig" (dict "min_replicas" $job.replicas "max_replicas" $job.replicas "target_ongoing_requests" $job.concurrency)
    ) }}
{{- /* With nobody waiting for first tokens, a replica reads its prompts itself. */}}
{{- $_ := set $model "prefill" dict }}
{{- $group := get (include "llm-serving.workerGroups" $root | fromJson) $model.group }}
{{- $workers := include "llm-serving.batchJobWorkers" (dict "job" $job "group" $group) | int }}
{{- /* An accelerator takes one of Ray's CPUs; the others are for reading and writing, and no core stands behind them. */}}
{{- $cpus := add $group.count 4 }}
{{- $config := dict
      "proxy_location" "EveryNode"
      "http_options" (dict "port" (int $root.Values.gateway.port))
      "logging_config" (dict "encoding" "JSON" "enable_access_log" false)
      "applications" (include "llm-serving.modelApplication" (dict "name" $job.model "model" $model) | fromYamlArray) }}
{{- $args := dict
      "input" (include "llm-serving.batchJobPlace" $job.input)
      "output" (include "llm-serving.batchJobPlace" $job.output)
      "replicas" (int $job.replicas)
      "concurrency" (int $job.concurrency)
      "serve" $config }}
{{- $claims := dict }}
{{- range list $job.input $job.output }}
{{- if hasPrefix "pvc://" . }}
{{- $claim := trimPrefix "pvc://" . | splitList "/" | first }}
{{- $_ := set $claims (printf "batch-%s" $claim) (dict "claim" $claim "mountPath" (printf "/mnt/batch/%s" $claim)) }}
{{- end }}
{{- end }}
{{- include "llm-serving.rayJob" (dict
      "root" $root
      "entrypoint" "python -m serve_apps.batch job"
      "env" (list (dict "name" "LLM_SERVING_BATCH_JOB" "value" (toJson $args)))
      "pods" (include "llm-serving.batchPods" $root | fromYaml)
      "existingSecret" $job.existingSecret
      "claims" $claims
      "name" "batch"
      "group" $group
      "workers" $workers
      "cpus" $cpus
    ) }}
{{- end -}}
