{{- /* KEDA takes no CA file, so it encrypts without a check where a CA of one's own signed the certificate. */ -}}
{{- define "tunesmith.kedaDatabase" -}}
{{- $database := (include "tunesmith.backends" . | fromYaml).database -}}
{{- $verified := ternary "require" "verify-full" (ne .Values.database.caSecret.name "") -}}
host: {{ $database.host | quote }}
port: {{ $database.port | int | quote }}
dbName: {{ .Values.database.name | quote }}
userName: {{ .Values.database.user | quote }}
sslmode: {{ get (dict "off" "prefer" "require" "require" "verify-full" $verified) $database.tls | quote }}
{{- end }}

{{- define "tunesmith.usesKeda" -}}
{{- if or .Values.worker.keda (eq .Values.trainer.mode "scaledJob") }}yes{{ end }}
{{- end }}

{{- define "tunesmith.gpuResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpus) 0 -}}
{{- $limits := merge (dict .gpuResource (int .gpus)) ($resources.limits | default dict) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources }}
{{- end }}
