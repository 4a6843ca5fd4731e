{{/*
A YAML value as a CEL literal. Kubernetes' CEL wants maps of one type, so structures become `Object...{}` initializers,
whose names follow the path of fields; only fields that are free maps, such as those of resources, stay maps, of texts.
Takes `value`, `type`, `indent`.
*/}}
{{- define "vecho.cel" -}}
{{- $at := . -}}
{{- $inner := add .indent 2 -}}
{{- if kindIs "map" .value -}}
{{- $free := regexMatch "\\.(limits|requests|labels|annotations|matchLabels|volumeAttributes)$" .type -}}
{{- $fields := list -}}
{{- range $key, $value := .value -}}
{{- $value = $free | ternary (toString $value) $value -}}
{{- $literal := include "vecho.cel" (dict "value" $value "type" (printf "%s.%s" $at.type $key) "indent" $inner) -}}
{{- $fields = printf "%s: %s" ($free | ternary (toJson $key) $key) $literal | append $fields -}}
{{- end -}}
{{- $pad := printf "\n%s" (repeat (int $inner) " ") -}}
{{- printf "%s{%s%s\n%s}" ($free | ternary "" .type) $pad (join (printf ",%s" $pad) $fields) (repeat (int .indent) " ") -}}
{{- else if kindIs "slice" .value -}}
{{- $items := list -}}
{{- range .value -}}
{{- $items = include "vecho.cel" (dict "value" . "type" $at.type "indent" $at.indent) | append $items -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "float64" .value -}}
{{- int64 .value -}}
{{- else -}}
{{- toJson .value -}}
{{- end -}}
{{- end -}}
