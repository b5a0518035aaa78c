{{- define "event-processor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The names of processes are appended to it, and both must fit into 63 characters. */}}
{{- define "event-processor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "event-processor.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "event-processor.selector" -}}
app.kubernetes.io/name: {{ include "event-processor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "event-processor.labels" -}}
{{ include "event-processor.selector" . }}
app.kubernetes.io/version: {{ include "event-processor.build" . | trunc 63 | replace ":" "-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The release that heartbeats report and await_version compares. */}}
{{- define "event-processor.build" -}}
{{- .Values.image.digest | default .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{- define "event-processor.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (include "event-processor.build" .) -}}
{{- end -}}
{{- end -}}

{{- define "event-processor.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "event-processor.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}
