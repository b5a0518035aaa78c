{{/*
Environment of one process: dict root, name (of the process), kind (web, worker, beat, bridge, relay, prepare).
*/}}
{{- define "event-processor.env" -}}
- {name: SERVICE_NAME, value: {{ .name | quote }}}
- {name: BUILD, value: {{ include "event-processor.build" .root | quote }}}
{{- if not (has .kind (list "web" "prepare")) }}
- {name: METRICS_HOST, value: "0.0.0.0"}
- {name: METRICS_PORT, value: "9100"}
{{- end }}
{{- range $name, $value := .root.Values.config }}
{{- if not (kindIs "invalid" $value) }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}
{{- $kind := .kind }}
{{- range $name, $from := .root.Values.secrets }}
{{- if and $from (or (not $from.only) (has $kind $from.only)) }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.name }}
      key: {{ $from.key | default $name }}
      optional: {{ $from.optional | default false }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "event-processor.container" -}}
image: {{ include "event-processor.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  {{- include "event-processor.env" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .root.Values.filesSecret }}
  - {name: files, mountPath: /etc/event-processor, readOnly: true}
  {{- end }}
{{- end -}}

{{/* The fields that every pod has; dict root, serviceAccount, graceSeconds. */}}
{{- define "event-processor.pod" -}}
serviceAccountName: {{ .serviceAccount }}
# No process uses the API of Kubernetes.
automountServiceAccountToken: false
# Kubernetes would set variables such as REDIS_PORT for each Service; they are not settings of this program.
enableServiceLinks: false
# Kubernetes' own process is the first of the pod and reaps children; the program gets signals as usual.
shareProcessNamespace: true
terminationGracePeriodSeconds: {{ .graceSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 128Mi}
  {{- with .root.Values.filesSecret }}
  - name: files
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
{{- end -}}
