{{/* Names, labels and the reading of values. What makes a container of them stands in _container.tpl. */}}

{{- define "vecho.name" -}}
{{- .Values.nameOverride | default "vecho" -}}
{{- end -}}

{{/* A Service's name begins with a letter and holds no dot; a release's may do otherwise. */}}
{{- define "vecho.fullname" -}}
{{- $name := include "vecho.name" . -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if regexMatch "^[0-9]" $release -}}
{{- printf "%s-%s" $name $release | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name $release -}}
{{- $release | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" ($release | trunc (sub 51 (len $name) | int) | trimSuffix "-") $name -}}
{{- end -}}
{{- end -}}

{{- define "vecho.selectorLabels" -}}
app.kubernetes.io/name: {{ include "vecho.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "vecho.labels" -}}
{{ include "vecho.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/*
The metadata of an object. Takes `root`, the context of the chart, and `name`; `labels` and `annotations` of this object
alone are optional. The chart's own labels take precedence, since selectors refer to them.
*/}}
{{- define "vecho.metadata" -}}
name: {{ .name }}
labels:
  {{- $own := include "vecho.labels" .root | fromYaml }}
  {{- mergeOverwrite (dict) .root.Values.commonLabels (.labels | default dict) $own | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels that a pod with the sidecar needs, so that the monitor of this release finds it and no other does. */}}
{{- define "vecho.sidecarLabels" -}}
vecho/sidecar: {{ .Release.Name | quote }}
{{- end -}}

{{- define "vecho.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry -}}
{{- with .Values.image -}}
{{- $host := splitList "/" .repository | first -}}
{{- if and $registry (contains "/" .repository) (or (contains "." $host) (contains ":" $host) (eq "localhost" $host)) -}}
{{- fail (printf "image.repository %s already has the registry %s, and the values name the registry %s: remove one" .repository $host $registry) -}}
{{- end -}}
{{- $name := empty $registry | ternary .repository (printf "%s/%s" $registry .repository) -}}
{{- if .digest -}}
{{- printf "%s@%s" $name .digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secrets to pull the image, each once, as items of `imagePullSecrets`. */}}
{{- define "vecho.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
{{- $names = kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . | append $names -}}
{{- end -}}
{{- range uniq $names }}
- name: {{ . | quote }}
{{- end -}}
{{- end -}}

{{- define "vecho.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "vecho.fullname" .) "") -}}
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

{{/* The address of the upstream if the values name none. */}}
{{- define "vecho.defaultUrl" -}}
https://api.openai.com/v1
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
The ports of all addresses in the configuration, whatever their key, of `targets`, and those of standalone.networkPolicy.egressPorts,
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
{{- range .Values.targets -}}
{{- $addresses = append $addresses .url -}}
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
