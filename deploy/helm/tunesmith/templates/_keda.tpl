{{- define "tunesmith.kedaDatabase" -}}
{{- $database := (include "tunesmith.backends" . | fromYaml).database -}}
host: {{ $database.host | quote }}
port: {{ $database.port | int | quote }}
dbName: {{ .Values.database.name | quote }}
userName: {{ .Values.database.user | quote }}
sslmode: {{ get (dict "off" "prefer" "require" "require" "verify-full" "verify-full") $database.tls | quote }}
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
