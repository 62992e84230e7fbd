{{- /* Renders a RayJob with a cluster of its own: its spec. Its head runs the driver, and its workers do what that asks of
Ray. Scope: dict "root" $ "entrypoint" (the driver's command) "env" (the driver's) "pods" (labels of all its pods)
"existingSecret" (their further environment) "claims" (mounted in all; by volume, dict "claim" "mountPath" "readOnly")
"name" (the worker group's) "group" (as of llm-serving.workerGroups) "workers" (how many) "cpus" (Ray's of each). */ -}}
{{- define "llm-serving.rayJob" -}}
{{- $overlay := include "llm-serving.rayJobOverlay" . | fromYaml }}
{{- $given := dict "name" "ray" "env" .env }}
{{- $ofHead := include "llm-serving.overlay" (dict "base" $overlay "over" (dict "spec" (dict "containers" (list $given)))) | fromJson }}
{{- $head := include "llm-serving.head" .root | fromJson }}
{{- $_ := set $head "podTemplate" (include "llm-serving.overlay" (dict "base" ($head.podTemplate | default dict) "over" $ofHead) | fromJson) }}
{{- $group := .group }}
{{- $_ := set $group "podTemplate" (include "llm-serving.overlay" (dict "base" ($group.podTemplate | default dict) "over" $overlay) | fromJson) }}
{{- $_ := set $group "pipelines" false -}}
entrypoint: {{ toJson .entrypoint }}
# By the operator itself, which may reach the head already.
submissionMode: HTTPMode
# Each on another cluster, which goes on where the last one was.
backoffLimit: 3
shutdownAfterJobFinishes: true
# For a look at the logs.
ttlSecondsAfterFinished: 60
rayClusterSpec:
  rayVersion: {{ .root.Values.rayVersion | quote }}
  {{- if eq .root.Values.security.ray.auth "token" }}
  # KubeRay makes a token. It needs one to stop the job at `helm uninstall`, when the release's own is gone already.
  authOptions: {mode: token}
  {{- end }}
  headGroupSpec:
    serviceType: ClusterIP
    rayStartParams:
      # The driver runs there, and nothing else.
      num-cpus: "0"
      {{- include "llm-serving.rayStartParams" . | nindent 6 }}
    template: {{- include "llm-serving.podTemplate" (dict "root" .root "role" "head" "driver" true "spec" $head) | nindent 6 }}
  workerGroupSpecs:
  - groupName: {{ .name }}
    replicas: {{ .workers }}
    minReplicas: {{ .workers }}
    maxReplicas: {{ .workers }}
    rayStartParams:
      num-cpus: {{ .cpus | quote }}
      {{- include "llm-serving.rayStartParams" . | nindent 6 }}
    {{- with $group.labels }}
    labels: {{- toYaml . | nindent 6 }}
    {{- end }}
    template: {{- include "llm-serving.podTemplate" (dict "root" .root "role" "worker" "spec" $group) | nindent 6 }}
{{- end -}}

{{- /* Renders what a RayJob adds to the pod templates of its head and of its worker group, as YAML: its own labels, when
it is ready, claims and credentials. Scope: as llm-serving.rayJob. */ -}}
{{- define "llm-serving.rayJobOverlay" -}}
metadata:
  labels: {{- omit .pods "ray.io/is-ray-node" | toYaml | nindent 4 }}
spec:
  # The head's, too: the driver reads and writes.
  serviceAccountName: {{ include "llm-serving.serviceAccountName" .root }}
  automountServiceAccountToken: false
  containers:
  - name: ray
    {{- with .existingSecret }}
    envFrom:
    - secretRef: {name: {{ . }}}
    {{- end }}
    # A cluster that is not ready gets no driver, and there is no proxy before it.
    readinessProbe:
      httpGet: {path: /api/healthz, port: 52365}
    volumeMounts:
    {{- range $volume, $claim := .claims }}
    - {name: {{ $volume }}, mountPath: {{ $claim.mountPath }}{{ if $claim.readOnly }}, readOnly: true{{ end }}}
    {{- else }} []
    {{- end }}
  volumes:
  {{- range $volume, $claim := .claims }}
  - name: {{ $volume }}
    persistentVolumeClaim: {claimName: {{ $claim.claim }}{{ if $claim.readOnly }}, readOnly: true{{ end }}}
  {{- else }} []
  {{- end }}
{{- end -}}
