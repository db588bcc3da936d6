{{/* Always has the word in it: the alert on absent targets looks for it in the job's name, which is namespace/this. */}}
{{- define "streamgauge.name" -}}
{{- if contains "streamgauge" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name | trunc 50 }}-streamgauge{{ end }}
{{- end }}

{{- define "streamgauge.selector" -}}
app.kubernetes.io/name: streamgauge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "streamgauge.labels" -}}
{{ include "streamgauge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The configuration as JSON. What is wrong with it in detail is for `streamgauge check` to say. */}}
{{- define "streamgauge.config" -}}
{{- if not (trim .Values.config) }}
{{- fail "config is empty: give the configuration file with --set-file config=streamgauge.toml; it must name an upstream at least" }}
{{- end }}
{{- $config := fromToml .Values.config }}
{{- if hasKey $config "Error" }}
{{- fail (printf "config is no TOML (%s): run `streamgauge check` on the file, which says line and column" $config.Error) }}
{{- end }}
{{- $config | toJson }}
{{- end }}

{{/* server.drain_timeout in whole seconds, rounded up; the program's own default is 10 minutes. */}}
{{- define "streamgauge.drainSeconds" -}}
{{- $server := default dict (include "streamgauge.config" . | fromJson).server }}
{{- $text := get $server "drain_timeout" | default "10m" | toString }}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h|d)$" $text) }}
{{- fail (printf "server.drain_timeout is %q: write it as \"10m\"; the pods' grace period follows from it" $text) }}
{{- end }}
{{- $number := regexFind "^[0-9]+" $text | int64 }}
{{- $unit := regexFind "[a-z]+$" $text }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}{{ else }}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}{{ end }}
{{- end }}

{{- define "streamgauge.mostReplicas" -}}
{{- if eq .Values.autoscaling.engine "none" }}{{ .Values.replicas }}{{ else }}{{ .Values.autoscaling.maxReplicas }}{{ end }}
{{- end }}

{{/* Ends the render where the pods would not do what the configuration says. */}}
{{- define "streamgauge.refuse" -}}
{{- $config := include "streamgauge.config" . | fromJson }}
{{- $server := default dict $config.server }}
{{- if hasKey $server "state_dir" }}
{{- fail "server.state_dir is set: take it out of config; the chart mounts the only directory that the pod can write to, and names it" }}
{{- end }}
{{- $most := include "streamgauge.mostReplicas" . | int }}
{{- $apart := list }}
{{- if $config.limit }}
{{- $apart = append $apart "limits or budgets ([[limit]])" }}
{{- end }}
{{- $canaries := list }}
{{- range $config.route }}
{{- if .canary }}
{{- $canaries = append $canaries (.name | default "without a name") }}
{{- $apart = append $apart "a canary" }}
{{- end }}
{{- end }}
{{- $redis := get (default dict $config.limits) "redis" }}
{{- if and (gt $most 1) $apart (not $redis) }}
{{- fail (printf "config has %s, up to %d replicas, and no Redis: each replica would count and judge for itself. Add `redis = \"redis://HOST:6379\"` under [limits] of config, or set replicas to 1 with autoscaling.engine none" (join " and " (uniq $apart)) $most) }}
{{- end }}
{{- if and (gt $most 1) $canaries (not (get (default dict $config.fleet) "name")) }}
{{- fail (printf "config has a canary (route %s), up to %d replicas, and no name of a fleet: each replica would judge it by its own requests and send it another share. Add `name = \"%s\"` under [fleet] of config, which no other release on the same Redis has, or set replicas to 1 with autoscaling.engine none" (join ", " $canaries) $most .Release.Name) }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and (ne .engine "none") (lt (int .maxReplicas) (int .minReplicas)) }}
{{- fail (printf "autoscaling.maxReplicas is %d, less than minReplicas, %d: raise it, or lower minReplicas" (int .maxReplicas) (int .minReplicas)) }}
{{- end }}
{{- if and (eq .engine "keda") (not .prometheus) }}
{{- fail "autoscaling.engine is keda: set autoscaling.prometheus to the address of the Prometheus that scrapes the pods, as http://prometheus-operated.monitoring:9090" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fewer replicas only when those that left had the time to drain, so that not all of them drain at once. HPA takes an hour at most. */}}
{{- define "streamgauge.scaleDown" -}}
scaleDown:
  stabilizationWindowSeconds: {{ min 3600 (max .Values.autoscaling.scaleDownWindowSeconds (include "streamgauge.drainSeconds" . | int)) }}
  # One a minute: each one's streams run to their end.
  policies: [{ type: Pods, value: 1, periodSeconds: 60 }]
{{- end }}
