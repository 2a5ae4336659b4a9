{{/* The pod, of a StatefulSet on SQLite and of a Deployment on PostgreSQL. */}}
{{- define "neutroflag.pod" -}}
metadata:
  labels:
    {{- include "neutroflag.labels" . | nindent 4 }}
  annotations:
    # Another text of the settings is another pod.
    neutroflag/settings: {{ .Values.settings | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "neutroflag.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # A drained stop stores and answers what was taken; before it, 5 s for the load balancer to look elsewhere.
  terminationGracePeriodSeconds: 50
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity:
    {{- toYaml .Values.affinity | nindent 4 }}
  {{- else if gt (int .Values.replicas) 1 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "neutroflag.selector" . | nindent 10 }}
  {{- end }}
  initContainers:
    # As ExecStartPre of the systemd unit: settings that cannot be used are named in this container's log.
    - name: config-check
      {{- include "neutroflag.container" . | nindent 6 }}
      args: ["config", "check"]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
  containers:
    - name: neutroflag
      {{- include "neutroflag.container" . | nindent 6 }}
      args: ["serve"]
      ports:
        {{- if .Values.tls.secretName }}
        - name: mllps
          containerPort: {{ .Values.mllp.tlsPort }}
        {{- else }}
        - name: mllp
          containerPort: {{ .Values.mllp.port }}
        {{- end }}
        - name: http
          containerPort: {{ .Values.http.port }}
      startupProbe:
        httpGet: &livez
          path: /livez
          port: http
          scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.tls.secretName "") }}
        periodSeconds: 2
        failureThreshold: 60
      # Does the process answer at all: only then does a new one help. A store that is away wants patience.
      livenessProbe:
        httpGet: *livez
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Does it accept and judge.
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
          scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.tls.secretName "") }}
        periodSeconds: 5
        timeoutSeconds: 6
        failureThreshold: 2
      lifecycle:
        preStop:
          exec:
            command: ["sleep", "5"]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
  volumes:
    - name: settings
      configMap:
        name: {{ include "neutroflag.fullname" . }}
    - name: tmp
      emptyDir: {}
    {{- if not (include "neutroflag.sqlite" .) }}
    - name: data
      emptyDir: {}
    {{- end }}
    {{- with .Values.tls.secretName }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.store.tlsSecretName }}
    - name: store-tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- range .Values.secrets }}
    - name: secret-{{ . }}
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
{{- end }}

{{- define "neutroflag.container" -}}
image: {{ include "neutroflag.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
env:
  - name: NEUTROFLAG_STORE__URL
    value: {{ .Values.store.url | quote }}
  {{- if .Values.store.password.secretName }}
  - name: PGPASSWORD
    valueFrom:
      secretKeyRef:
        name: {{ .Values.store.password.secretName }}
        key: {{ .Values.store.password.key }}
  {{- end }}
  - name: NEUTROFLAG_MLLP__HOST
    value: "0.0.0.0"
  - name: NEUTROFLAG_HTTP__HOST
    value: "0.0.0.0"
  - name: NEUTROFLAG_HTTP__PORT
    value: {{ .Values.http.port | quote }}
  {{- if .Values.tls.secretName }}
  - name: NEUTROFLAG_MLLP__PLAINTEXT
    value: "false"
  - name: NEUTROFLAG_MLLP__TLS_PORT
    value: {{ .Values.mllp.tlsPort | quote }}
  {{- range $face := list "MLLP" "HTTP" }}
  - name: NEUTROFLAG_{{ $face }}__CERTIFICATE
    value: /run/secrets/tls/tls.crt
  - name: NEUTROFLAG_{{ $face }}__KEY
    value: /run/secrets/tls/tls.key
  {{- end }}
  {{- if .Values.tls.clientCa }}
  - name: NEUTROFLAG_MLLP__CLIENT_CA
    value: /run/secrets/tls/ca.crt
  {{- end }}
  {{- else }}
  - name: NEUTROFLAG_MLLP__PORT
    value: {{ .Values.mllp.port | quote }}
  {{- range $face := list "MLLP" "HTTP" }}
  - name: NEUTROFLAG_{{ $face }}__ALLOW_PLAINTEXT
    value: "true"
  {{- end }}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: settings
    mountPath: /etc/neutroflag
    readOnly: true
  - name: data
    mountPath: /var/lib/neutroflag
  - name: tmp
    mountPath: /tmp
  {{- if .Values.tls.secretName }}
  - name: tls
    mountPath: /run/secrets/tls
    readOnly: true
  {{- end }}
  {{- if .Values.store.tlsSecretName }}
  - name: store-tls
    mountPath: /run/secrets/store
    readOnly: true
  {{- end }}
  {{- range .Values.secrets }}
  - name: secret-{{ . }}
    mountPath: /run/secrets/neutroflag/{{ . }}
    readOnly: true
  {{- end }}
{{- end }}
