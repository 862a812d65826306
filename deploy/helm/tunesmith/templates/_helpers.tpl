{{- define "tunesmith.name" -}}
{{- if contains "tunesmith" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-tunesmith" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tunesmith.selector" -}}
app.kubernetes.io/name: tunesmith
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "tunesmith.labels" -}}
{{ include "tunesmith.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tunesmith.image" -}}
{{- $image := .root.Values.image -}}
{{- if $image.registry }}{{ $image.registry }}/{{ end }}tunesmith-{{ .part }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- with index $image.digests .part }}@{{ . }}{{ end }}
{{- end }}

{{- define "tunesmith.publicHost" -}}
{{ (urlParse .Values.publicUrl).hostname }}
{{- end }}

{{- /* What the values lack, in one message each: what is wrong, then what to do. */ -}}
{{- define "tunesmith.check" -}}
{{- $values := .Values -}}
{{- if not $values.publicUrl }}{{ fail "publicUrl is empty: set the origin that clients use, such as https://tunes.example.org" }}{{ end }}
{{- if not (regexMatch "^https?://[^/]+$" $values.publicUrl) }}{{ fail (printf "publicUrl is %q: set scheme and host only, such as https://tunes.example.org" $values.publicUrl) }}{{ end }}
{{- if $values.bundled.enabled }}
{{- if not $values.bundled.existingSecret }}{{ fail "bundled.existingSecret is empty: name a Secret with postgres_password and s3_secret_key" }}{{ end }}
{{- else }}
{{- if not $values.database.host }}{{ fail "database.host is empty: name your PostgreSQL, or set bundled.enabled to try Tunesmith out" }}{{ end }}
{{- if not $values.database.existingSecret }}{{ fail (printf "database.existingSecret is empty: name a Secret whose key %q has the password" $values.database.passwordKey) }}{{ end }}
{{- if not $values.kafka.bootstrapServers }}{{ fail "kafka.bootstrapServers is empty: name your Kafka as host:port,host:port" }}{{ end }}
{{- if and $values.kafka.sasl.mechanism (not $values.kafka.sasl.existingSecret) }}{{ fail (printf "kafka.sasl.existingSecret is empty: name a Secret whose key %q has the password" $values.kafka.sasl.passwordKey) }}{{ end }}
{{- if not $values.s3.endpoint }}{{ fail "s3.endpoint is empty: name your S3 store as http://host:port or https://host:port" }}{{ end }}
{{- if not $values.s3.existingSecret }}{{ fail (printf "s3.existingSecret is empty: name a Secret with the keys %q and %q" $values.s3.accessKeyKey $values.s3.secretKeyKey) }}{{ end }}
{{- end }}
{{- $needed := add (int $values.trainer.drainSeconds) 10 }}
{{- if lt (int $values.trainer.terminationGracePeriodSeconds) (int $needed) }}{{ fail (printf "trainer.terminationGracePeriodSeconds is %d, which is less than trainer.drainSeconds and 10 s to end: set at least %d" (int $values.trainer.terminationGracePeriodSeconds) (int $needed)) }}{{ end }}
{{- end }}

{{- /* Where the backends are, the same for external and bundled ones. */ -}}
{{- define "tunesmith.backends" -}}
{{- $name := include "tunesmith.name" . -}}
{{- if .Values.bundled.enabled -}}
database: {host: {{ $name }}-postgres, port: 5432, secret: {{ .Values.bundled.existingSecret }}, key: postgres_password, tls: "off"}
kafka: {servers: "{{ $name }}-kafka:9092", replication: 1}
s3: {endpoint: "http://{{ $name }}-minio:9000", secret: {{ .Values.bundled.existingSecret }}, accessKey: "", secretKey: s3_secret_key}
{{- else -}}
database: {host: {{ .Values.database.host | quote }}, port: {{ .Values.database.port }}, secret: {{ .Values.database.existingSecret }}, key: {{ .Values.database.passwordKey }}, tls: {{ .Values.database.tls | quote }}}
kafka: {servers: {{ .Values.kafka.bootstrapServers | quote }}, replication: {{ .Values.kafka.replicationFactor }}}
s3: {endpoint: {{ .Values.s3.endpoint | quote }}, secret: {{ .Values.s3.existingSecret }}, accessKey: {{ .Values.s3.accessKeyKey }}, secretKey: {{ .Values.s3.secretKeyKey }}}
{{- end -}}
{{- end }}

{{- define "tunesmith.value" -}}
- {name: {{ .name }}, value: {{ .value | toString | quote }}}
{{- end }}

{{- define "tunesmith.secretValue" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}

{{- /* Settings of a process that uses database, broker and store. */ -}}
{{- define "tunesmith.env" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $backends := include "tunesmith.backends" $root | fromYaml -}}
{{- $url := printf "postgresql+asyncpg://%s@%s:%v/%s" $values.database.user $backends.database.host (int $backends.database.port) $values.database.name }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_PUBLIC_URL" "value" $values.publicUrl) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_DATABASE_URL" "value" $url) }}
{{ include "tunesmith.secretValue" (dict "name" "TUNESMITH_DATABASE_PASSWORD" "secret" $backends.database.secret "key" $backends.database.key) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_DATABASE_TLS" "value" $backends.database.tls) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_KAFKA_BOOTSTRAP_SERVERS" "value" $backends.kafka.servers) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_KAFKA_REPLICATION_FACTOR" "value" $backends.kafka.replication) }}
{{- if not $values.bundled.enabled }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_KAFKA_TLS" "value" $values.kafka.tls) }}
{{- with $values.kafka.sasl }}{{ if .mechanism }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_KAFKA_SASL_MECHANISM" "value" .mechanism) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_KAFKA_SASL_USERNAME" "value" .username) }}
{{ include "tunesmith.secretValue" (dict "name" "TUNESMITH_KAFKA_SASL_PASSWORD" "secret" .existingSecret "key" .passwordKey) }}
{{- end }}{{ end }}
{{- range $part := list "database" "kafka" "s3" }}{{ if (index $values $part).caSecret.name }}
{{ include "tunesmith.value" (dict "name" (printf "TUNESMITH_%s_CA_FILE" (upper $part)) "value" (printf "/etc/tunesmith/%s-ca.crt" $part)) }}
{{- end }}{{ end }}
{{- end }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_ENDPOINT" "value" $backends.s3.endpoint) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_BUCKET" "value" $values.s3.bucket) }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_REGION" "value" $values.s3.region) }}
{{- with $values.s3.stsEndpoint }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_STS_ENDPOINT" "value" .) }}
{{- end }}
{{- with $values.s3.stsRoleArn }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_STS_ROLE_ARN" "value" .) }}
{{- end }}
{{- if $backends.s3.accessKey }}
{{ include "tunesmith.secretValue" (dict "name" "TUNESMITH_S3_ACCESS_KEY" "secret" $backends.s3.secret "key" $backends.s3.accessKey) }}
{{- else }}
{{ include "tunesmith.value" (dict "name" "TUNESMITH_S3_ACCESS_KEY" "value" "tunesmith") }}
{{- end }}
{{ include "tunesmith.secretValue" (dict "name" "TUNESMITH_S3_SECRET_KEY" "secret" $backends.s3.secret "key" $backends.s3.secretKey) }}
{{- include "tunesmith.extraEnv" . }}
{{- end }}

{{- define "tunesmith.extraEnv" -}}
{{- range $name, $value := merge (dict) (.own | default dict) .root.Values.env }}
{{ include "tunesmith.value" (dict "name" $name "value" $value) }}
{{- end }}
{{- end }}

{{- define "tunesmith.hasCa" -}}
{{- if not .Values.bundled.enabled }}{{ if or .Values.database.caSecret.name .Values.kafka.caSecret.name .Values.s3.caSecret.name }}yes{{ end }}{{ end }}
{{- end }}

{{- define "tunesmith.caVolume" -}}
{{- $values := .Values -}}
{{- if include "tunesmith.hasCa" . }}
- name: ca
  projected:
    sources:
      {{- range $part := list "database" "kafka" "s3" }}{{ with (index $values $part).caSecret }}{{ if .name }}
      - secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: {{ $part }}-ca.crt}]}
      {{- end }}{{ end }}{{ end }}
{{- end }}
{{- end }}

{{- define "tunesmith.caMount" -}}
{{- if include "tunesmith.hasCa" . }}
- {name: ca, mountPath: /etc/tunesmith, readOnly: true}
{{- end }}
{{- end }}

{{- define "tunesmith.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tunesmith.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* /health fails only where a restart helps; /ready also when a dependency is unavailable. */ -}}
{{- define "tunesmith.probes" -}}
startupProbe: {httpGet: {path: /health, port: http}, periodSeconds: 2, failureThreshold: 60}
livenessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 5, timeoutSeconds: 5, failureThreshold: 2}
{{- end }}

{{- define "tunesmith.placement" -}}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "tunesmith.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "tunesmith.selector" . | fromYaml | toJson }}}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "tunesmith.selector" . | fromYaml | toJson }}}
{{- end }}

{{- define "tunesmith.podMetadata" -}}
labels:
  {{- include "tunesmith.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with .root.Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tunesmith.podBasics" -}}
serviceAccountName: {{ include "tunesmith.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
securityContext: {{- include "tunesmith.podSecurity" .root | nindent 2 }}
{{- end }}
