{{/*
One kind of process: dict root, name, kind, role (of await_version), command, port, graceSeconds, resources, and
replicas unless something scales it.
*/}}
{{- define "event-processor.deployment" -}}
{{- $selector := include "event-processor.selector" .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "event-processor.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "event-processor.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  {{- if hasKey . "replicas" }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  # Longer than two waits of await_version: web waits for bridges, and bridges wait for workers.
  progressDeadlineSeconds: {{ add 600 (mul 2 (int .root.Values.awaitVersion.seconds)) }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  template:
    metadata:
      labels:
        {{- include "event-processor.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
        event-processor/serves: {{ eq .kind "web" | ternary "requests" "metrics" }}
      {{- with .root.Values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- $pod := dict "root" .root "serviceAccount" (include "event-processor.serviceAccount" .root) "graceSeconds" .graceSeconds }}
      {{- include "event-processor.pod" $pod | nindent 6 }}
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
              app.kubernetes.io/component: {{ $.name }}
        {{- end }}
      {{- if and .root.Values.awaitVersion.enabled (has .kind (list "web" "bridge" "beat")) }}
      initContainers:
        - name: await-version
          command: [python, manage.py, await_version, {{ .role }}, --seconds, {{ .root.Values.awaitVersion.seconds | toString | quote }}]
          {{- include "event-processor.container" . | nindent 10 }}
          resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}
      {{- end }}
      containers:
        - name: {{ .kind }}
          command: {{ toJson .command }}
          {{- include "event-processor.container" . | nindent 10 }}
          resources: {{- toYaml .resources | nindent 12 }}
          ports:
            - {name: {{ eq .kind "web" | ternary "http" "metrics" }}, containerPort: {{ .port }}}
          # /health asks no server: a restart does not help a process that waits for PostgreSQL.
          startupProbe:
            httpGet: {path: /health, port: {{ .port }}}
            periodSeconds: 2
            timeoutSeconds: 3
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health, port: {{ .port }}}
            periodSeconds: 15
            timeoutSeconds: 5
            failureThreshold: 3
          # 503 while a server is unavailable that the process needs; web takes orders without Kafka and Redis.
          readinessProbe:
            httpGet: {path: /health/ready, port: {{ .port }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 2
          {{- if eq .kind "web" }}
          # Wait until the pod has left the Service, after which no new requests come.
          lifecycle:
            preStop:
              exec: {command: [sleep, "5"]}
          {{- end }}
{{- end -}}

{{/* One pod at a time may be evicted, and a pod that is not ready always. Dict root, name. */}}
{{- define "event-processor.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "event-processor.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "event-processor.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "event-processor.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* Scales by processor use; dict root, name, min, max, cpuPercent. */}}
{{- define "event-processor.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "event-processor.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "event-processor.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "event-processor.fullname" .root }}-{{ .name }}
  minReplicas: {{ .min }}
  maxReplicas: {{ .max }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .cpuPercent }}}
{{- end -}}
