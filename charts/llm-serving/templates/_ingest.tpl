{{- /* Renders the labels of the pods that bring documents into pipelines. Scope: the root. */ -}}
{{- define "llm-serving.ingestPods" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ingest
{{- end -}}

{{- /* Renders the Job that brings the documents of `ingest` into a pipeline: its spec. What is unchanged is not embedded
again, so it may run as often as it likes. Scope: dict "root" $ "name" (the pipeline's) "ingest" (its block). */ -}}
{{- define "llm-serving.ingestJob" -}}
{{- $ingest := .ingest }}
{{- $claim := list }}
{{- if hasPrefix "pvc://" $ingest.source }}{{ $claim = trimPrefix "pvc://" $ingest.source | splitList "/" }}{{ end -}}
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
        args:
          {{- if $claim }}
          - {{ printf "/source/%s" (rest $claim | join "/") | trimSuffix "/" | quote }}
          {{- else }}
          - {{ $ingest.source | quote }}
          {{- end }}
          - http://{{ include "llm-serving.serveServiceName" .root }}:{{ int .root.Values.gateway.port }}
          - {{ .name }}
          - --tenant={{ $ingest.tenant | default "ingest" }}
          - --concurrency={{ int ($ingest.concurrency | default 4) }}
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
        persistentVolumeClaim: {claimName: {{ first $claim }}, readOnly: true}
      {{- end }}
{{- end -}}
