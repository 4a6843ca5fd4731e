{{/* Names, labels and the reading of values. What makes a container of them stands in _container.tpl. */}}

{{/* A Service's name begins with a letter and holds no dot; a release's may do otherwise. */}}
{{- define "vecho.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $release -}}
{{- printf "vecho-%s" $release | trunc 52 | trimSuffix "-" -}}
{{- else if contains "vecho" $release -}}
{{- $release | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-vecho" ($release | trunc 46 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "vecho.selectorLabels" -}}
app.kubernetes.io/name: vecho
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "vecho.labels" -}}
{{ include "vecho.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels that a pod with the sidecar needs, so that the monitor of this release finds it and no other does. */}}
{{- define "vecho.sidecarLabels" -}}
vecho/sidecar: {{ .Release.Name | quote }}
{{- end -}}

{{- define "vecho.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What an application sets as OPENAI_BASE_URL. */}}
{{- define "vecho.baseUrl" -}}
{{- $scheme := hasKey .Values.secrets "tls" | ternary "https" "http" -}}
{{- if eq .Values.mode "standalone" -}}
{{- printf "%s://%s.%s:%d/v1" $scheme (include "vecho.fullname" .) .Release.Namespace (int .Values.ports.public) -}}
{{- else -}}
{{- printf "http://127.0.0.1:%d/v1" (int .Values.ports.public) -}}
{{- end -}}
{{- end -}}

{{/* The text of a configuration value. Helm reads every number as a float, which would print 16777216 as 1.6777216e+07. */}}
{{- define "vecho.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* A quantity in whole MiB: 3Gi, 640Mi, 2G, plain bytes. */}}
{{- define "vecho.mebibytes" -}}
{{- $text := toString . -}}
{{- if kindIs "float64" . -}}{{- $text = printf "%.0f" . -}}{{- end -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $bytes := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- divf (mulf (trimSuffix $unit $text | float64) (index $bytes $unit)) 1048576 | floor | int64 -}}
{{- end -}}

{{/* A duration in seconds: 25s, 1m, 500ms, 1d, 25. */}}
{{- define "vecho.seconds" -}}
{{- $text := include "vecho.text" . -}}
{{- $unit := regexFind "[a-z]*$" $text -}}
{{- $seconds := dict "" 1 "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- mulf (trimSuffix $unit $text | float64) (index $seconds $unit | float64) -}}
{{- end -}}

{{/*
The ports of all addresses in the configuration, whatever their key, and those of standalone.networkPolicy.egressPorts,
as a JSON list.
*/}}
{{- define "vecho.egressPorts" -}}
{{- $defaults := dict "http" 80 "https" 443 "redis" 6379 "rediss" 6379 -}}
{{- $ports := list -}}
{{- range .Values.standalone.networkPolicy.egressPorts -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- $addresses := list (dig "upstream" "url" "https://default" .Values.config) -}}
{{- range $section, $keys := .Values.config -}}
{{- range $key, $value := kindIs "map" $keys | ternary $keys dict -}}
{{- if kindIs "string" $value -}}
{{- $addresses = splitList "," $value | concat $addresses -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $addresses -}}
{{- $host := trim . | lower | regexFind "^[a-z]+://[^/?#]*" -}}
{{- $scheme := regexFind "^[a-z]+" $host -}}
{{- $explicit := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- if hasKey $defaults $scheme -}}
{{- $ports = append $ports ($explicit | default (get $defaults $scheme) | int) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* What the schema cannot say: values that have to fit each other. */}}
{{- define "vecho.checks" -}}
{{- if eq (int .Values.ports.public) (int .Values.ports.ops) -}}
{{- fail "ports.public and ports.ops are the same" -}}
{{- end -}}
{{- $standalone := eq .Values.mode "standalone" -}}
{{- with .Values.disk -}}
{{- if .enabled -}}
{{- $most := div (mul 9 (include "vecho.mebibytes" .size | int64)) 10 -}}
{{- $asked := dig "disk" "max_mb" 2048 $.Values.config | int64 -}}
{{- if gt $asked $most -}}
{{- fail (printf "config.disk.max_mb is %d, and a volume of disk.size %s has room for %d: a tenth stays free" $asked .size $most) -}}
{{- end -}}
{{- if eq .volume "claim" -}}
{{- if not .claim -}}{{- fail "disk.volume is claim: disk.claim has to name one" -}}{{- end -}}
{{- if or (not $standalone) (gt (int $.Values.standalone.replicas) 1) $.Values.standalone.autoscaling.enabled -}}
{{- fail "disk.volume is claim: one folder serves one vecho, so mode has to be standalone with one replica and no autoscaling" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- $memory := dig "memory" "limit_mb" 500 .Values.config | int64 -}}
{{- if $limit -}}
{{- $most := div (mul 4 (include "vecho.mebibytes" $limit | int64)) 5 -}}
{{- if gt $memory $most -}}
{{- fail (printf "config.memory.limit_mb is %d, and resources.limits.memory %s leaves %d: a fifth stays free" $memory $limit $most) -}}
{{- end -}}
{{- $request := dig "requests" "memory" "0" .Values.resources -}}
{{- if gt (include "vecho.mebibytes" $request | int64) (include "vecho.mebibytes" $limit | int64) -}}
{{- fail (printf "resources.requests.memory %s is more than resources.limits.memory %s" $request $limit) -}}
{{- end -}}
{{- end -}}
{{- if $standalone -}}
{{- with .Values.standalone -}}
{{- $grace := include "vecho.seconds" (dig "shutdown" "grace" "25s" $.Values.config) | float64 -}}
{{- if lt (float64 .terminationGracePeriodSeconds) (addf $grace .preStopSeconds) -}}
{{- fail "standalone.terminationGracePeriodSeconds is less than standalone.preStopSeconds and config.shutdown.grace together" -}}
{{- end -}}
{{- if .autoscaling.enabled -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail "standalone.autoscaling.minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- if not (or (dig "requests" "cpu" "" $.Values.resources) (dig "limits" "cpu" "" $.Values.resources)) -}}
{{- fail "standalone.autoscaling.enabled: targetCPU is a percentage of resources.requests.cpu, which has to be there" -}}
{{- end -}}
{{- end -}}
{{- if and $.Values.monitoring.monitor.enabled .networkPolicy.enabled (not .networkPolicy.monitoring) -}}
{{- fail "monitoring.monitor is enabled: standalone.networkPolicy.monitoring has to let Prometheus in" -}}
{{- end -}}
{{- end -}}
{{- else if hasKey .Values.secrets "tls" -}}
{{- fail "secrets.tls is for mode standalone: a sidecar's public port is on loopback" -}}
{{- end -}}
{{- end -}}
