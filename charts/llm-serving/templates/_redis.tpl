{{- /* Renders redis.conf. The official image's entrypoint, which would write one, is not used. Scope: the password. */ -}}
{{- define "llm-serving.redisConfig" -}}
dir /data
requirepass {{ . }}
# Every write, on disk within a second: a Redis that restarts must know the cluster still.
appendonly yes
appendfsync everysec
save ""
# Never forget anything to make room.
maxmemory-policy noeviction
{{ end -}}

{{- /* Renders the spec of the pod with Redis. Scope: the root. */ -}}
{{- define "llm-serving.redisPod" -}}
{{- $secret := include "llm-serving.redisName" . -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.redis.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
# The official image's user.
securityContext: {{- include "llm-serving.podSecurity" 999 | nindent 2 }}
containers:
- name: redis
  image: {{ .Values.redis.image }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [redis-server, /etc/redis/redis.conf]
  ports:
  - {name: redis, containerPort: 6379}
  env:
  # For redis-cli in the probes.
  - name: REDISCLI_AUTH
    valueFrom:
      secretKeyRef: {name: {{ $secret }}, key: password}
  # -e: an error in the answer, as while it still loads, is a failure.
  readinessProbe:
    exec: {command: [redis-cli, -e, ping]}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  livenessProbe:
    tcpSocket: {port: redis}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml .Values.redis.resources | nindent 4 }}
  securityContext: {{- include "llm-serving.containerSecurity" . | nindent 4 }}
  volumeMounts:
  - {name: data, mountPath: /data}
  - {name: configuration, mountPath: /etc/redis, readOnly: true}
volumes:
- name: configuration
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
    items:
    - {key: redis.conf, path: redis.conf}
{{- end -}}
