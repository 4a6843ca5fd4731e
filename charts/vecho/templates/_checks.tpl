{{/* Checks of values that must fit each other. The schema checks each value by itself. */}}

{{- define "vecho.checks" -}}
{{- if eq (int .Values.ports.public) (int .Values.ports.ops) -}}
{{- fail "ports.public and ports.ops are the same" -}}
{{- end -}}
{{- include "vecho.checks.disk" . -}}
{{- include "vecho.checks.resources" . -}}
{{- include "vecho.checks.extras" . -}}
{{- include "vecho.checks.targets" . -}}
{{- if eq .Values.mode "standalone" -}}
{{- include "vecho.checks.pods" . -}}
{{- include "vecho.checks.autoscaling" . -}}
{{- include "vecho.checks.service" . -}}
{{- else -}}
{{- if hasKey .Values.secrets "tls" -}}
{{- fail "secrets.tls is for mode standalone: a sidecar's public port is on loopback" -}}
{{- end -}}
{{- if or .Values.serviceAccount.create .Values.serviceAccount.name -}}
{{- fail "serviceAccount is for mode standalone: a sidecar has the ServiceAccount of its pod" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecho.checks.disk" -}}
{{- with .Values.disk -}}
{{- if .enabled -}}
{{- $most := div (mul 9 (include "vecho.mebibytes" .size | int64)) 10 -}}
{{- $asked := dig "disk" "max_mb" 2048 $.Values.config | int64 -}}
{{- if gt $asked $most -}}
{{- fail (printf "config.disk.max_mb is %d, and a volume of disk.size %s has room for %d: a tenth stays free" $asked .size $most) -}}
{{- end -}}
{{- $storage := dig "limits" "ephemeral-storage" "" $.Values.resources -}}
{{- if and $storage (eq .volume "emptyDir") (lt (include "vecho.mebibytes" $storage | int64) (include "vecho.mebibytes" .size | int64)) -}}
{{- fail (printf "resources.limits.ephemeral-storage is %s, and an emptyDir of disk.size %s counts as ephemeral storage: raise the limit or lower disk.size" $storage .size) -}}
{{- end -}}
{{- if eq .volume "claim" -}}
{{- if not .claim -}}{{- fail "disk.volume is claim: disk.claim has to name one" -}}{{- end -}}
{{- if or (ne $.Values.mode "standalone") (gt (int $.Values.standalone.replicas) 1) $.Values.standalone.autoscaling.enabled -}}
{{- fail "disk.volume is claim: one folder serves one vecho, so mode has to be standalone with one replica and no autoscaling" -}}
{{- end -}}
{{- if eq "RollingUpdate" (get $.Values.standalone.strategy "type") -}}
{{- fail "disk.volume is claim: two pods must not open one folder, so standalone.strategy.type has to be Recreate or absent" -}}
{{- end -}}
{{- else if .claim -}}
{{- fail (printf "disk.claim is set, and disk.volume is %s: set disk.volume to claim" .volume) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name of a target is part of the path of its key. */}}
{{- define "vecho.checks.targets" -}}
{{- $names := list -}}
{{- range .Values.targets -}}
{{- if has .name $names -}}{{- fail (printf "targets: two have the name %s" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- with .Values.targets -}}
{{- $url := dig "upstream" "url" "" $.Values.config | default (include "vecho.defaultUrl" $) -}}
{{- if not (has $url (list (include "vecho.defaultUrl" $) (first .).url)) -}}
{{- fail (printf "config.upstream.url is %s, and the first of targets has the url %s: set the former to null" $url (first .).url) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecho.checks.resources" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- $memory := dig "memory" "limit_mb" 500 .Values.config | int64 -}}
{{- if $limit -}}
{{- $most := div (mul 4 (include "vecho.mebibytes" $limit | int64)) 5 -}}
{{- if gt $memory $most -}}
{{- fail (printf "config.memory.limit_mb is %d, and resources.limits.memory %s leaves %d: a fifth stays free" $memory $limit $most) -}}
{{- end -}}
{{- end -}}
{{- range $resource := list "memory" "ephemeral-storage" -}}
{{- $limit := dig "limits" $resource "" $.Values.resources -}}
{{- $request := dig "requests" $resource "0" $.Values.resources -}}
{{- if and $limit (gt (include "vecho.mebibytes" $request | int64) (include "vecho.mebibytes" $limit | int64)) -}}
{{- fail (printf "resources.requests.%s %s is more than resources.limits.%s %s" $resource $request $resource $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* In a sidecar a mount may name a volume of the application. A pod specification is readable, so it holds no secret. */}}
{{- define "vecho.checks.extras" -}}
{{- $secret := list "VECHO_UPSTREAM_API_KEY" "VECHO_CACHE_KEY_SECRET" "VECHO_REDIS_PASSWORD" "VECHO_ADMIN_TOKEN" "VECHO_TRACES_HEADERS" "OPENAI_API_KEY" -}}
{{- $set := include "vecho.settings" . | fromYaml -}}
{{- $seen := dict -}}
{{- range .Values.extraEnv -}}
{{- if and (hasPrefix "VECHO_" .name) (hasKey $set (trimPrefix "VECHO_" .name)) -}}
{{- fail (printf "extraEnv sets %s, which the chart sets itself: use config, secrets, ports or disk" .name) -}}
{{- end -}}
{{- if and (has .name $secret) (not .valueFrom) -}}
{{- fail (printf "extraEnv has %s in the open: take it from a Secret by valueFrom.secretKeyRef, or use secrets" .name) -}}
{{- end -}}
{{- if hasKey $seen .name -}}{{- fail (printf "extraEnv sets %s twice" .name) -}}{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- $own := list "vecho-cache" "vecho-config" "vecho-secrets" -}}
{{- $names := list -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (concat $own $names) -}}
{{- fail (printf "extraVolumes: the name %s is taken already" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $paths := list "/var/cache/vecho" "/etc/vecho/config" "/etc/vecho/secrets" -}}
{{- range .Values.extraVolumeMounts -}}
{{- if and (eq $.Values.mode "standalone") (not (has .name $names)) -}}
{{- fail (printf "extraVolumeMounts: there is no volume %s in extraVolumes" .name) -}}
{{- end -}}
{{- if has (trimSuffix "/" .mountPath) $paths -}}
{{- fail (printf "extraVolumeMounts: the path %s is taken already" .mountPath) -}}
{{- end -}}
{{- $paths = append $paths (trimSuffix "/" .mountPath) -}}
{{- end -}}
{{- end -}}

{{- define "vecho.checks.pods" -}}
{{- with .Values.standalone -}}
{{- $grace := include "vecho.seconds" (dig "shutdown" "grace" "25s" $.Values.config) | float64 -}}
{{- if lt (float64 .terminationGracePeriodSeconds) (addf $grace .preStopSeconds) -}}
{{- fail "standalone.terminationGracePeriodSeconds is less than standalone.preStopSeconds and config.shutdown.grace together" -}}
{{- end -}}
{{- if and (eq .dnsPolicy "None") (not .dnsConfig.nameservers) -}}
{{- fail "standalone.dnsPolicy is None: standalone.dnsConfig.nameservers has to name the servers" -}}
{{- end -}}
{{- $rolling := get .strategy "rollingUpdate" | default dict -}}
{{- if and (has (toString (get $rolling "maxSurge")) (list "0" "0%")) (has (toString (get $rolling "maxUnavailable")) (list "0" "0%")) -}}
{{- fail "standalone.strategy.rollingUpdate: maxSurge and maxUnavailable are both zero, so no pod could be replaced" -}}
{{- end -}}
{{- if and $.Values.monitoring.monitor.enabled .networkPolicy.enabled (not .networkPolicy.monitoring) -}}
{{- fail "monitoring.monitor is enabled: standalone.networkPolicy.monitoring has to let Prometheus in" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceAccount.annotations (not .Values.serviceAccount.create) -}}
{{- fail "serviceAccount.annotations is set: they are of the ServiceAccount that serviceAccount.create creates" -}}
{{- end -}}
{{- end -}}

{{- define "vecho.checks.autoscaling" -}}
{{- with .Values.standalone.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail "standalone.autoscaling.minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- if not (or .targetCPU .targetRequestsPerSecond .targetRequestsInFlight) -}}
{{- fail "standalone.autoscaling.enabled: set targetCPU, targetRequestsPerSecond or targetRequestsInFlight" -}}
{{- end -}}
{{- if and .targetCPU (not (or (dig "requests" "cpu" "" $.Values.resources) (dig "limits" "cpu" "" $.Values.resources))) -}}
{{- fail "standalone.autoscaling.enabled: targetCPU is a percentage of resources.requests.cpu, which has to be there" -}}
{{- end -}}
{{- if and (or .targetRequestsPerSecond .targetRequestsInFlight) $.Values.standalone.networkPolicy.enabled (not $.Values.standalone.networkPolicy.monitoring) -}}
{{- fail "standalone.autoscaling has a target of requests, which Prometheus counts: standalone.networkPolicy.monitoring has to let it in" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecho.checks.service" -}}
{{- with .Values.standalone.service -}}
{{- if and .nodePort (eq .type "ClusterIP") -}}
{{- fail "standalone.service.nodePort is set: standalone.service.type has to be NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and .loadBalancerSourceRanges (ne .type "LoadBalancer") -}}
{{- fail "standalone.service.loadBalancerSourceRanges is set: standalone.service.type has to be LoadBalancer" -}}
{{- end -}}
{{- if ne .type "ClusterIP" -}}
{{- with $.Values.standalone.networkPolicy -}}
{{- $outside := false -}}
{{- range .clients -}}{{- if hasKey . "ipBlock" -}}{{- $outside = true -}}{{- end -}}{{- end -}}
{{- if and .enabled (not $outside) -}}
{{- fail (printf "standalone.service.type is %s: standalone.networkPolicy.clients has to name the callers outside of the cluster by an ipBlock" $.Values.standalone.service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
