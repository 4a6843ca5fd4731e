{{/*
The container and its volumes, the same in all three modes. An application's chart includes

  vecho.sidecar        an item of initContainers, best the first
  vecho.volumes        items of volumes
  vecho.sidecarLabels  labels of the pod
  vecho.baseUrl        the value of OPENAI_BASE_URL

each with `.Subcharts.vecho`, the context of this chart as a dependency; charts/example-app does so.
*/}}

{{- define "vecho.sidecar" -}}
{{- if ne .Values.mode "sidecar" -}}
{{- fail "vecho.sidecar is included: vecho.mode has to be sidecar" -}}
{{- end -}}
- {{ include "vecho.nativeSidecar" . | nindent 2 | trim }}
{{- end -}}

{{/*
A native sidecar: an init container that goes on. It is ready before the application starts, does not keep a Job from
ending, and gets its SIGTERM after the application's containers are gone, which is why it needs no preStop.
*/}}
{{- define "vecho.nativeSidecar" -}}
{{ include "vecho.container" . }}
restartPolicy: Always
{{- end -}}

{{- define "vecho.container" -}}
{{- include "vecho.checks" . -}}
name: vecho
image: {{ include "vecho.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if .Values.configFile.configMap }}
args: ["--config", "/etc/vecho/config/{{ .Values.configFile.key }}"]
{{- end }}
env:
  {{- include "vecho.env" . | trim | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if eq .Values.mode "standalone" }}
  - name: vecho
    containerPort: {{ .Values.ports.public }}
  {{- end }}
  - name: vecho-ops
    containerPort: {{ .Values.ports.ops }}
# Ready means that requests are accepted. An upstream that is down makes no pod unready: what is cached is served.
startupProbe:
  httpGet: {path: /readyz, port: {{ .Values.ports.ops }}}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ .Values.ports.ops }}}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: {{ .Values.ports.ops }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "vecho.securityContext" . | nindent 2 }}
{{- with include "vecho.mounts" . }}
volumeMounts:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "vecho.securityContext" -}}
{{- with .Values.runAsUser -}}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{ end -}}
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: ["ALL"]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
The configuration as environment variables without their prefix, as a YAML map. Variables work in any namespace;
`secrets` and `disk` add their keys.
*/}}
{{- define "vecho.settings" -}}
{{- $public := eq .Values.mode "standalone" | ternary .Values.listenHost "127.0.0.1" -}}
{{- $env := dict "LISTEN" (printf "%s:%d" $public (int .Values.ports.public)) -}}
{{- $_ := set $env "ADMIN_LISTEN" (printf "%s:%d" .Values.listenHost (int .Values.ports.ops)) -}}
{{- range $section, $keys := .Values.config -}}
{{- if kindIs "map" $keys -}}
{{- range $key, $value := $keys -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $env (printf "%s_%s" $section $key | upper) (include "vecho.text" $value) -}}
{{- end -}}
{{- end -}}
{{- else if not (kindIs "invalid" $keys) -}}
{{- $_ := set $env (upper $section) (include "vecho.text" $keys) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $env "DISK_ENABLED" (toString .Values.disk.enabled) -}}
{{- if .Values.disk.enabled -}}
{{- $_ := set $env "DISK_PATH" "/var/cache/vecho" -}}
{{- end -}}
{{- range $section, $files := .Values.secrets -}}
{{- range $key, $file := $files -}}
{{- $_ := set $env (printf "%s_%s" $section $key | upper) (printf "/etc/vecho/secrets/%s.%s" $section $key) -}}
{{- end -}}
{{- end -}}
{{- if .Values.targets -}}
{{- $_ := set $env "TARGETS" (include "vecho.targets" .) -}}
{{- if eq (get $env "UPSTREAM_URL") (include "vecho.defaultUrl" .) -}}
{{- $_ := unset $env "UPSTREAM_URL" -}}
{{- end -}}
{{- end -}}
{{- toYaml $env -}}
{{- end -}}

{{/* The targets as vecho reads them, with the mounted file of each key. */}}
{{- define "vecho.targets" -}}
{{- $targets := list -}}
{{- range .Values.targets -}}
{{- $target := omit . "api_key_file" -}}
{{- if .api_key_file -}}
{{- $_ := set $target "api_key_file" (printf "/etc/vecho/secrets/targets.%s" .name) -}}
{{- end -}}
{{- $targets = append $targets $target -}}
{{- end -}}
{{- $targets | toJson -}}
{{- end -}}

{{/* The Secrets whose keys are mounted, as items of `sources` of a projected volume. */}}
{{- define "vecho.secretSources" -}}
{{- range $section, $files := .Values.secrets }}
{{- range $key, $file := $files }}
- secret:
    name: {{ $file.name | quote }}
    items: [{key: {{ $file.key | quote }}, path: {{ $section }}.{{ $key }}}]
{{- end }}
{{- end }}
{{- range .Values.targets }}
{{- $name := .name }}
{{- with .api_key_file }}
- secret:
    name: {{ .name | quote }}
    items: [{key: {{ .key | quote }}, path: {{ printf "targets.%s" $name | quote }}}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "vecho.env" -}}
{{- range $name, $value := include "vecho.settings" . | fromYaml }}
- name: VECHO_{{ $name }}
  value: {{ $value | quote }}
{{- end -}}
{{- end -}}

{{- define "vecho.mounts" -}}
{{- if .Values.disk.enabled }}
- name: vecho-cache
  mountPath: /var/cache/vecho
{{- end }}
{{- if .Values.configFile.configMap }}
- name: vecho-config
  mountPath: /etc/vecho/config
  readOnly: true
{{- end }}
{{- if include "vecho.secretSources" . }}
- name: vecho-secrets
  mountPath: /etc/vecho/secrets
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "vecho.volumes" -}}
{{- include "vecho.volumeItems" . | trim -}}
{{- end -}}

{{- define "vecho.volumeItems" -}}
{{- with .Values.disk }}
{{- if .enabled }}
- name: vecho-cache
  {{- if eq .volume "claim" }}
  persistentVolumeClaim:
    claimName: {{ .claim | quote }}
  {{- else if eq .volume "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: ["ReadWriteOnce"]
        {{- with .storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ .size }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .size }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.configFile }}
{{- if .configMap }}
- name: vecho-config
  configMap:
    name: {{ .configMap | quote }}
{{- end }}
{{- end }}
{{- with include "vecho.secretSources" . }}
- name: vecho-secrets
  projected:
    sources:
      {{- . | trim | nindent 6 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
