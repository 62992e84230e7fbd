{{- /* Renders the labels of the pods that bring documents into pipelines. Scope: the root. */ -}}
{{- define "llm-serving.ingestPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ingest
{{- end -}}

{{- /* Renders the labels of the Ray pods that do. Not those of the release's other Ray pods, whose budgets and rules are
not for them. Scope: the root. */ -}}
{{- define "llm-serving.ingestRayPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}-ingest
ray.io/is-ray-node: "yes"
{{- end -}}

{{- /* Renders the `ingest` of the pipelines where Ray Data does it, as JSON, by pipeline. Scope: the root. */ -}}
{{- define "llm-serving.rayIngests" -}}
{{- $found := dict }}
{{- range $name, $pipeline := include "llm-serving.pipelines" . | fromJson }}
{{- if eq "ray-data" (dig "executor" "job" ($pipeline.ingest | default dict)) }}
{{- /* Memory for Ray's own processes, the one that reads and sends, and what it has under way. */}}
{{- $resources := dict "requests" (dict "cpu" "1" "memory" "2Gi") "limits" (dict "memory" "2Gi") }}
{{- $_ := set $found $name (mergeOverwrite (dict "workers" 2 "resources" $resources) $pipeline.ingest) }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end -}}

{{- /* Renders the claim that has the documents of `ingest`, if one has. Scope: the block. */ -}}
{{- define "llm-serving.ingestClaim" -}}
{{- if hasPrefix "pvc://" .source }}{{ trimPrefix "pvc://" .source | splitList "/" | first }}{{ end }}
{{- end -}}

{{- /* Renders what the programs that bring documents in have to be told, as YAML. Scope: dict "root" $ "name" (the
pipeline's) "ingest" (its block). */ -}}
{{- define "llm-serving.ingestArguments" -}}
{{- $source := .ingest.source }}
{{- with include "llm-serving.ingestClaim" .ingest }}
{{- $source = printf "/source/%s" (trimPrefix (printf "pvc://%s" .) $source | trimAll "/") | trimSuffix "/" }}
{{- end -}}
- {{ $source | quote }}
- http://{{ include "llm-serving.serveServiceName" .root }}:{{ int .root.Values.gateway.port }}
- {{ .name }}
- --tenant={{ .ingest.tenant | default "ingest" }}
- --concurrency={{ int (.ingest.concurrency | default 4) }}
{{- end -}}

{{- /* Renders the Job that brings the documents of `ingest` into a pipeline: its spec. What is unchanged is not embedded
again, so it may run as often as it likes. Scope: as llm-serving.ingestArguments. */ -}}
{{- define "llm-serving.ingestJob" -}}
{{- $ingest := .ingest }}
{{- $claim := include "llm-serving.ingestClaim" $ingest -}}
# Where the source cannot be reached. An unreadable document (exit status 1) is so the next time, too.
backoffLimit: 3
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {containerName: ingest, operator: In, values: [1]}
template:
  metadata:
    labels:
      {{- include "llm-serving.labels" .root | nindent 6 }}
      app.kubernetes.io/component: ingest
  spec:
    restartPolicy: Never
    # For the cloud's identity, by which a bucket may be read.
    serviceAccountName: {{ include "llm-serving.serviceAccountName" .root }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with .root.Values.image.pullSecrets }}
    imagePullSecrets: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- include "llm-serving.podSecurity" 1000 | nindent 6 }}
    containers:
      - name: ingest
        image: {{ include "llm-serving.image" (dict "root" .root "name" "serve") }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        command: [python, -m, serve_apps.rag.ingest]
        args: {{- include "llm-serving.ingestArguments" . | nindent 10 }}
        {{- with $ingest.existingSecret }}
        envFrom:
          - secretRef: {name: {{ . }}}
        {{- end }}
        resources:
          requests: {cpu: 250m, memory: 256Mi}
          limits: {memory: 1Gi}
        securityContext: {{- include "llm-serving.containerSecurity" . | nindent 10 }}
        volumeMounts:
          - {name: internal, mountPath: /etc/llm-serving/secrets/internal, readOnly: true}
          {{- if $claim }}
          - {name: source, mountPath: /source, readOnly: true}
          {{- end }}
    volumes:
      - name: internal
        secret: {secretName: {{ include "llm-serving.internalSecret" .root }}, defaultMode: 0440}
      {{- if $claim }}
      - name: source
        persistentVolumeClaim: {claimName: {{ $claim }}, readOnly: true}
      {{- end }}
{{- end -}}

{{- /* Renders the name of the RayJob that does so. What has run does not run again: only one that is asked for something
else has another name. Scope: dict "root" $ "name" (the pipeline's) "ingest" (of llm-serving.rayIngests). */ -}}
{{- define "llm-serving.ingestRayJobName" -}}
{{- /* 47: KubeRay's limit. */}}
{{- $digest := list .name (omit .ingest "workers" "resources" "concurrency") | toJson | sha256sum | trunc 8 -}}
{{ printf "%s-ingest" (include "llm-serving.fullname" .root) | trunc 38 | trimSuffix "-" }}-{{ $digest }}
{{- end -}}

{{- /* Renders that RayJob: its spec. Its workers stand where pipelines do. Scope: as llm-serving.ingestRayJobName. */ -}}
{{- define "llm-serving.ingestRayJob" -}}
{{- $words := list "python -m serve_apps.rag.job" }}
{{- /* Ray gives the entrypoint to a shell. */}}
{{- range append (include "llm-serving.ingestArguments" . | fromYamlArray) (printf "--workers=%d" (int .ingest.workers)) }}
{{- $words = append $words (regexMatch "^[A-Za-z0-9_./:=-]+$" . | ternary . (printf "'%s'" (replace "'" `'\''` .))) }}
{{- end }}
{{- $claims := dict }}
{{- with include "llm-serving.ingestClaim" .ingest }}
{{- $_ := set $claims "source" (dict "claim" . "mountPath" "/source" "readOnly" true) }}
{{- end }}
{{- $groups := include "llm-serving.workerGroups" .root | fromJson }}
{{- $group := dict }}
{{- range $name := include "llm-serving.groupOrder" $groups | fromYamlArray }}
{{- if and (not $group) (get $groups $name).pipelines }}{{ $group = pick (get $groups $name) "nodeSelector" "tolerations" "podTemplate" }}{{ end }}
{{- end }}
{{- $group = merge (dict "resources" .ingest.resources) $group (include "llm-serving.head" .root | fromJson) }}
{{- include "llm-serving.rayJob" (dict
      "root" .root
      "entrypoint" (join " " $words)
      "pods" (include "llm-serving.ingestRayPods" .root | fromYaml)
      "existingSecret" .ingest.existingSecret
      "claims" $claims
      "name" "ingest"
      "group" $group
      "workers" (int .ingest.workers)
      "cpus" 1
    ) }}
{{- end -}}
