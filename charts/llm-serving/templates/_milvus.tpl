{{- /* Renders Milvus' user.yaml, which it lays over its own configuration. Scope: the root. */ -}}
{{- define "llm-serving.milvusConfig" -}}
{{- $security := dict "security" (dict "authorizationEnabled" true) }}
{{- /* What 2.6 takes by itself. A later one may take another queue, and not find what is in this one. */}}
{{- $own := dict "common" $security "mq" (dict "type" "rocksmq") }}
{{- mergeOverwrite $own (deepCopy .Values.milvus.config) | toYaml }}
{{- end -}}

{{- /* Renders the configuration of the etcd inside Milvus. On loopback: it asks nobody for a password. Scope: none. */ -}}
{{- define "llm-serving.milvusEtcd" -}}
listen-client-urls: http://127.0.0.1:2379
advertise-client-urls: http://127.0.0.1:2379
quota-backend-bytes: 4294967296
auto-compaction-mode: revision
auto-compaction-retention: "1000"
{{- end -}}

{{- /* Renders the spec of the pod with Milvus. Scope: the root. */ -}}
{{- define "llm-serving.milvusPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
# It writes to disk what it holds in memory.
terminationGracePeriodSeconds: 120
{{- with .Values.milvus.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.milvus.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.milvus.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  # The image's user.
  {{- include "llm-serving.podSecurity" 999 | nindent 2 }}
  # Releases before the image had a user gave its program to root's group.
  supplementalGroups: [0]
containers:
- name: milvus
  image: {{ .Values.milvus.image }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [milvus, run, standalone]
  ports:
  - {name: grpc, containerPort: 19530}
  - {name: metrics, containerPort: 9091}
  env:
  - {name: DEPLOY_MODE, value: STANDALONE}
  - {name: COMMON_STORAGETYPE, value: local}
  - {name: ETCD_USE_EMBED, value: "true"}
  - {name: ETCD_DATA_DIR, value: /var/lib/milvus/etcd}
  - {name: ETCD_CONFIG_PATH, value: /milvus/configs/embedEtcd.yaml}
  # Read at the first start only, when it makes the user root.
  - name: COMMON_SECURITY_DEFAULTROOTPASSWORD
    valueFrom:
      secretKeyRef: {name: {{ include "llm-serving.milvusSecret" . }}, key: password}
  # Ten minutes to read its log again, then as Milvus itself says it is.
  startupProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 120
  readinessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 8
  resources: {{- toYaml .Values.milvus.resources | nindent 4 }}
  securityContext: {{- include "llm-serving.containerSecurity" . | nindent 4 }}
  volumeMounts:
  - {name: data, mountPath: /var/lib/milvus}
  - {name: temporary, mountPath: /tmp}
  - {name: configuration, mountPath: /milvus/configs/user.yaml, subPath: user.yaml, readOnly: true}
  - {name: configuration, mountPath: /milvus/configs/embedEtcd.yaml, subPath: embedEtcd.yaml, readOnly: true}
volumes:
- name: temporary
  emptyDir: {}
- name: configuration
  configMap: {name: {{ include "llm-serving.milvusName" . }}}
{{- end -}}
