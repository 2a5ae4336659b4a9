{{- define "neutroflag.fullname" -}}
{{- if contains "neutroflag" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-neutroflag" (.Release.Name | trunc 41 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{- define "neutroflag.selector" -}}
app.kubernetes.io/name: neutroflag
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "neutroflag.labels" -}}
{{ include "neutroflag.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "neutroflag.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "neutroflag.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "neutroflag.sqlite" -}}
{{- if hasPrefix "sqlite" .Values.store.url }}yes{{ end }}
{{- end }}

{{- define "neutroflag.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What must not be installed, said before anything is. */}}
{{- define "neutroflag.refusals" -}}
{{- if and (include "neutroflag.sqlite" .) (gt (int .Values.replicas) 1) }}
{{- fail (printf "replicas: %d on SQLite: one file has one engine. Set store.url to a PostgreSQL address (docs/many-machines.md)" (int .Values.replicas)) }}
{{- end }}
{{- if and (not .Values.tls.secretName) (not .Values.allowPlaintext) }}
{{- fail "patients' data would cross the network in the clear: name a certificate (tls.secretName), or say allowPlaintext: true" }}
{{- end }}
{{- if regexMatch "^[^/]+//[^/@:]*:[^@/]*@" .Values.store.url }}
{{- fail "store.url holds a password: give it by store.password.secretName" }}
{{- end }}
{{- if regexMatch "(?m)^\\s*\\[store\\]" .Values.settings }}
{{- fail "settings: [store] stands in store.url, so that the chart knows which database it is" }}
{{- end }}
{{- end }}
