{{- /* Deployment, Service, budget and autoscaler of a service with an HTTP API: `part`, `env`, and whether it uses the backends. */ -}}
{{- define "tunesmith.api" -}}
{{- $name := printf "%s-%s" (include "tunesmith.name" .root) .part -}}
{{- $own := index .root.Values .part -}}
{{- $here := dict "root" .root "part" .part "own" $own -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "tunesmith.labels" $here | nindent 4 }}
spec:
  {{- if not $own.autoscaling.enabled }}
  replicas: {{ $own.replicas }}
  {{- end }}
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {{ include "tunesmith.selector" $here | fromYaml | toJson }}}
  template:
    metadata: {{- include "tunesmith.podMetadata" $here | nindent 6 }}
    spec:
      {{- include "tunesmith.podBasics" $here | nindent 6 }}
      {{- include "tunesmith.placement" $here | nindent 6 }}
      {{- include "tunesmith.spread" $here | nindent 6 }}
      # Requests have 20 s to end after SIGTERM, background tasks 10.
      terminationGracePeriodSeconds: 45
      containers:
        - name: {{ .part }}
          image: {{ include "tunesmith.image" $here }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          ports: [{name: http, containerPort: 8000}]
          env: {{- .env | nindent 12 }}
          {{- include "tunesmith.probes" .root | nindent 10 }}
          # Endpoints are updated while the pod ends: requests still arrive for some seconds.
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          securityContext: {{- include "tunesmith.containerSecurity" .root | nindent 12 }}
          resources: {{- toYaml $own.resources | nindent 12 }}
          volumeMounts:
            - {name: work, mountPath: /work}
            - {name: tmp, mountPath: /tmp}
            {{- if .backends }}{{ include "tunesmith.caMount" .root | nindent 12 }}{{ end }}
      volumes:
        - {name: work, emptyDir: {sizeLimit: {{ $own.scratchSize }}}}
        - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
        {{- if .backends }}{{ include "tunesmith.caVolume" .root | nindent 8 }}{{ end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "tunesmith.labels" $here | nindent 4 }}
spec:
  selector: {{- include "tunesmith.selector" $here | nindent 4 }}
  ports: [{name: http, port: 8000, targetPort: http}]
{{ include "tunesmith.scale" $here }}
{{- end }}

{{- /* The disruption budget and the autoscaler of a Deployment. */ -}}
{{- define "tunesmith.scale" -}}
{{- $name := printf "%s-%s" (include "tunesmith.name" .root) .part -}}
{{- $fewest := ternary .own.autoscaling.min .own.replicas .own.autoscaling.enabled | int -}}
{{- if and .root.Values.podDisruptionBudgets (gt $fewest 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "tunesmith.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {{ include "tunesmith.selector" . | fromYaml | toJson }}}
{{- end }}
{{- if .own.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "tunesmith.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ .own.autoscaling.min }}
  maxReplicas: {{ .own.autoscaling.max }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .own.autoscaling.cpuPercent }}}}
{{- end }}
{{- end }}
