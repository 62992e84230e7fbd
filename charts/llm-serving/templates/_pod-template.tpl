{{- /* Renders a Ray pod's template with its overlay applied, as YAML. Only the release's name labels it: a chart
version or a checksum here would roll the RayCluster at every upgrade, and KubeRay's own labels carry its Services.
Scope: dict "root" $ "role" (head or worker) "name" (a worker's group; none where its pods are not spread)
"driver" (whether a job's runs there) "spec" (of llm-serving.head or llm-serving.workerGroups). */ -}}
{{- define "llm-serving.podTemplate" -}}
{{- include "llm-serving.overlaidPod" (dict
      "labels" (dict "app.kubernetes.io/instance" .root.Release.Name)
      "spec" (include "llm-serving.pod" . | fromYaml)
      "over" .spec.podTemplate
    ) }}
{{- end -}}

{{- /* Renders a pod's template with its overlay applied, as YAML. Each claim is one volume there, mounted wherever it is
asked for, as the kubelet waits for ever for the second volume of a claim; what was read-only is mounted read-only.
Scope: dict "labels" "spec" (the pod's) "over" (the overlay). */ -}}
{{- define "llm-serving.overlaidPod" -}}
{{- $template := dict "metadata" (dict "labels" .labels) "spec" .spec }}
{{- $template = include "llm-serving.overlay" (dict "base" $template "over" .over) | fromJson }}
{{- $volumes := list }}
{{- $first := dict }}
{{- $asked := dict }}
{{- range $volume := $template.spec.volumes }}
{{- with $volume.persistentVolumeClaim }}
{{- $_ := set $asked $volume.name (deepCopy .) }}
{{- $volume = get $first .claimName | default $volume }}
{{- $_ := set $first .claimName $volume }}
{{- if not .readOnly }}{{ $_ := unset $volume.persistentVolumeClaim "readOnly" }}{{ end }}
{{- end }}
{{- $volumes = append $volumes $volume }}
{{- end }}
{{- $_ := set $template.spec "volumes" (uniq $volumes) }}
{{- range concat $template.spec.containers ($template.spec.initContainers | default list) }}
{{- range $mount := .volumeMounts }}
{{- with get $asked .name }}
{{- $_ := set $mount "name" (get $first .claimName).name }}
{{- if .readOnly }}{{ $_ := set $mount "readOnly" true }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $template }}
{{- end -}}

{{- /* Renders a Ray pod's spec. The Ray container comes first: KubeRay takes the first for it.
Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.pod" -}}
{{- $values := .root.Values -}}
{{- if eq .role "worker" }}
serviceAccountName: {{ include "llm-serving.serviceAccountName" .root }}
automountServiceAccountToken: false
# A minute more than the longest drain, for Ray's own shutdown.
terminationGracePeriodSeconds: {{ add $values.maxDrainSeconds 60 }}
{{- end }}
{{- with .spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
enableServiceLinks: false
{{- with $values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .name }}
topologySpreadConstraints:
{{- $pods := dict "app.kubernetes.io/instance" .root.Release.Name "ray.io/group" .name }}
{{- include "llm-serving.spread" (dict "pods" $pods "by" (list "ray.io/cluster")) | nindent 0 }}
{{- end }}
securityContext: {{- include "llm-serving.podSecurity" 1000 | nindent 2 }}
containers:
- name: ray
  image: {{ include "llm-serving.image" (dict "root" .root "name" .spec.image) }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  ports: {{- include "llm-serving.ports" . | nindent 2 }}
  env: {{- include "llm-serving.environment" . | nindent 2 }}
  resources: {{- toYaml .spec.resources | nindent 4 }}
  securityContext: {{- include "llm-serving.containerSecurity" .root | nindent 4 }}
  {{- include "llm-serving.probes" . | nindent 2 }}
  {{- if eq .role "worker" }}
  # A worker told to go finishes its streams first.
  lifecycle:
    preStop:
      exec: {command: [python, -m, serve_apps.common.drain, --seconds={{ int $values.maxDrainSeconds }}]}
  {{- end }}
  volumeMounts: {{- include "llm-serving.volumeMounts" . | nindent 2 }}
volumes: {{- include "llm-serving.volumes" . | nindent 0 }}
{{- end -}}

{{- /* Renders the Ray container's ports. One port switches off all that KubeRay would add, so all are listed; `serve`
is what the serve Service and the readiness probe go by. Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.ports" -}}
- {name: serve, containerPort: {{ int .root.Values.gateway.port }}}
- {name: metrics, containerPort: 8080}
{{- if eq .role "head" }}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: as-metrics, containerPort: 44217}
- {name: dash-metrics, containerPort: 44227}
{{- end }}
{{- end -}}

{{- /* Renders the Ray container's environment; Ray reads it on every node before anything else starts.
Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.environment" -}}
# HAProxy, and not a Python process, carries the bytes; models answer it directly.
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING, value: "1"}
- {name: RAY_SERVE_HAPROXY_TCP_NODELAY, value: "1"}
# One thread carries more than the gateways of a pod can; more of them wake each other for every token.
- {name: RAY_SERVE_HAPROXY_NBTHREAD, value: "1"}
# So that a gateway may listen at the pod's own address beside it.
- {name: SERVE_SOCKET_REUSE_PORT_ENABLED, value: "1"}
# A reload of HAProxy cuts streams older than this.
- {name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S, value: {{ add .root.Values.maxDrainSeconds 60 | quote }}}
# THROUGHPUT_OPTIMIZED would keep logs in files only.
- {name: RAY_SERVE_LOG_TO_STDERR, value: "1"}
{{- if not .driver }}
# Where `kubectl logs` reads; a process's own stderr is a file of Ray's. A driver's is what the job's submitter shows.
- {name: LLM_SERVING_CONTAINER_LOG, value: /proc/1/fd/2}
{{- end }}
# From a cached embedding to an answer of many minutes; Ray's own buckets are too coarse for a latency objective.
- name: RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS
  value: "5,10,25,50,100,250,500,1000,2500,5000,10000,30000,60000,120000,300000,600000"
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- if eq .role "head" }}
# Serve's controller looks at everything ten times a second unless told; at rest that takes a sixth of a core.
- {name: RAY_SERVE_CONTROL_LOOP_INTERVAL_S, value: "0.5"}
{{- else }}
# Ray's niceness of 15 lets its own processes go before; here they would go before requests.
- {name: RAY_worker_niceness, value: "0"}
{{- end }}
# Nothing runs on the head that could finish first, and a worker has drained in its preStop hook.
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: "0"}
{{- if eq .spec.type "cpu" }}
{{ include "llm-serving.cpuEnvironment" . }}
{{- end }}
{{- if .spec.type }}
{{- with include "llm-serving.huggingFaceSecret" .root }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: token}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Renders what vLLM on CPUs has in its environment. Scope: none. */ -}}
{{- define "llm-serving.cpuEnvironment" -}}
# vLLM on CPU: GiB of KV cache for a replica, and no pinning to cores that Kubernetes may have given to others.
- {name: VLLM_CPU_KVCACHE_SPACE, value: "1"}
- {name: VLLM_CPU_OMP_THREADS_BIND, value: nobind}
# A core for each accelerator of type cpu, as Ray gives its workers: threads beyond those wait for each other, spinning.
- {name: OMP_NUM_THREADS, value: "1"}
# One worker computes in the engine's process; the process that vLLM would start for it is for threads that are pinned.
- {name: VLLM_ENABLE_V1_MULTIPROCESSING, value: "0"}
# There is no C++ compiler in the images. torch would ask for one, and the engine end, when a request asks for logprobs.
- {name: TORCH_COMPILE_DISABLE, value: "1"}
{{- end -}}

{{- /* Renders the Ray container's probes. KubeRay would add its own to workers: a script that fails after one slow
answer and takes them out of the Service. A worker without a replica has no proxy and is not ready; that is right, as
readiness is membership in the serve Service. Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.probes" -}}
# Ray's node agent (raylet, and on the head the GCS): ten minutes to come up, then dead after two without an answer.
startupProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 12
readinessProbe:
  {{- if eq .role "head" }}
  httpGet: {path: /api/healthz, port: 52365}
  {{- else }}
  httpGet: {path: /-/healthz, port: serve}
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- /* Renders topology spread constraints: over nodes and zones, as far as there are some; a GPU elsewhere is better than
none. Scope: dict "pods" (their labels) "by" (keys of labels of which each value counts by itself). */ -}}
{{- define "llm-serving.spread" -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- toYaml $.pods | nindent 6 }}
  {{- with $.by }}
  matchLabelKeys: {{ toJson . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Renders a pod's security context, within Kubernetes' restricted standard. Scope: the user's id. */ -}}
{{- define "llm-serving.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* Renders a container's security context. The volumes below are all Ray, HAProxy and vLLM write to.
Scope: the root. */ -}}
{{- define "llm-serving.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Renders the Ray container's mounts. Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.volumeMounts" -}}
- {name: shared-memory, mountPath: /dev/shm}
- {name: temporary, mountPath: /tmp}
- {name: home, mountPath: /home/ray}
{{- if eq .role "worker" }}
- {name: internal, mountPath: /etc/llm-serving/secrets/internal, readOnly: true}
{{- end }}
{{- if .spec.pipelines }}
- {name: data, mountPath: /var/lib/llm-serving}
{{- if include "llm-serving.batchClaim" .root }}
- {name: batch, mountPath: /mnt/batch}
{{- end }}
{{- if eq .root.Values.security.auth "apiKeys" }}
- {name: api-keys, mountPath: /etc/llm-serving/secrets/api-keys, readOnly: true}
{{- end }}
- {name: upstreams, mountPath: /etc/llm-serving/secrets/upstreams, readOnly: true}
- {name: tools, mountPath: /etc/llm-serving/secrets/tools, readOnly: true}
- {name: milvus, mountPath: /etc/llm-serving/secrets/milvus, readOnly: true}
{{- if (include "llm-serving.redisConnection" .root | fromYaml).secret }}
- {name: redis, mountPath: /etc/llm-serving/secrets/redis, readOnly: true}
{{- end }}
{{- end }}
{{- if .spec.cacheClaim }}
- {name: cache, mountPath: /home/ray/.cache}
{{- end }}
{{- include "llm-serving.weightsMounts" .spec }}
{{- end -}}

{{- /* Renders the pod's volumes, one per mount. Scope: as llm-serving.podTemplate. */ -}}
{{- define "llm-serving.volumes" -}}
# Ray's object store and what vLLM's workers share; counted to the container's memory.
- name: shared-memory
  emptyDir: {medium: Memory}
- name: temporary
  emptyDir: {}
# Downloaded weights and compiled graphs, under ~/.cache.
- name: home
  emptyDir: {}
{{- with .spec.cacheClaim }}
- name: cache
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- if eq .role "worker" }}
- name: internal
  secret: {secretName: {{ include "llm-serving.internalSecret" .root }}, defaultMode: 0440}
{{- end }}
{{- if .spec.pipelines }}
# Embedded vector stores.
- name: data
  {{- with .root.Values.pipelines.dataClaim }}
  persistentVolumeClaim: {claimName: {{ . }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- with include "llm-serving.batchClaim" .root }}
- name: batch
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- if eq .root.Values.security.auth "apiKeys" }}
- name: api-keys
  secret: {secretName: {{ include "llm-serving.apiKeysSecret" .root }}, defaultMode: 0440}
{{- end }}
# Whether or not there is an external model, a tool with a credential or a Milvus that asks for one: a volume more would
# roll the RayCluster.
- name: upstreams
  secret: {secretName: {{ include "llm-serving.upstreamsSecret" .root }}, defaultMode: 0440, optional: true}
- name: tools
  secret: {secretName: {{ include "llm-serving.toolsSecret" .root }}, defaultMode: 0440, optional: true}
- name: milvus
  secret: {secretName: {{ include "llm-serving.milvusSecret" .root }}, defaultMode: 0440, optional: true}
{{- with (include "llm-serving.redisConnection" .root | fromYaml).secret }}
# For the gateway; the head has it from its environment.
- name: redis
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
    - {key: password, path: password}
{{- end }}
{{- end }}
{{- include "llm-serving.weightsVolumes" (dict "root" .root "spec" .spec) }}
{{- end -}}

{{- /* Renders the mounts of what weights are on. Scope: dict "modelClaims" "modelImages" (as of a worker group). */ -}}
{{- define "llm-serving.weightsMounts" -}}
{{- range .modelClaims }}
- {name: claim-{{ . }}, mountPath: /mnt/models/{{ . }}, readOnly: true}
{{- end }}
{{- range .modelImages }}
{{- $folder := include "llm-serving.imageFolder" . }}
- {name: {{ $folder }}, mountPath: /mnt/models/{{ $folder }}, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Renders the volumes of llm-serving.weightsMounts. Scope: dict "root" $ "spec" (as there). */ -}}
{{- define "llm-serving.weightsVolumes" -}}
{{- range .spec.modelClaims }}
- name: claim-{{ . }}
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- range .spec.modelImages }}
- name: {{ include "llm-serving.imageFolder" . }}
  image: {reference: {{ quote . }}, pullPolicy: {{ $.root.Values.image.pullPolicy }}}
{{- end }}
{{- end -}}
