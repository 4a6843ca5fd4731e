{{/*
The version of the policy's API. A cluster tells Helm its kinds; `helm template` knows none of them, so there the version
of Kubernetes decides.
*/}}
{{- define "vecho.policyVersion" -}}
{{- $asked := .Values.injection.apiVersion -}}
{{- $kube := .Capabilities.KubeVersion.Version -}}
{{- $live := .Capabilities.APIVersions.Has "v1/Pod" -}}
{{- $served := list -}}
{{- range $version, $since := dict "v1" "1.36" "v1beta1" "1.34" "v1alpha1" "1.32" -}}
{{- $kind := printf "admissionregistration.k8s.io/%s/MutatingAdmissionPolicy" $version -}}
{{- if or ($.Capabilities.APIVersions.Has $kind) (and (not $live) (semverCompare (printf ">=%s.0-0" $since) $kube)) -}}
{{- $served = append $served $version -}}
{{- end -}}
{{- end -}}
{{- $help := "enable the feature gate and the API there (--runtime-config), use Kubernetes 1.36, or choose mode sidecar" -}}
{{- if and $asked (has $asked $served) -}}
{{- $asked -}}
{{- else if and $asked $live -}}
{{- fail (printf "injection.apiVersion is %s, and this cluster (Kubernetes %s) does not serve MutatingAdmissionPolicy in that version: leave it empty, or %s" $asked $kube $help) -}}
{{- else if $asked -}}
{{- $asked -}}
{{- else if not $served -}}
{{- fail (printf "mode is injection, and this cluster (Kubernetes %s) serves no MutatingAdmissionPolicy, which exists since 1.32 and is on by default since 1.36: %s" $kube $help) -}}
{{- else -}}
{{- range list "v1alpha1" "v1beta1" "v1" -}}
{{- if has . $served -}}{{- $asked = . -}}{{- end -}}
{{- end -}}
{{- $asked -}}
{{- end -}}
{{- end -}}

{{/*
Patches that add loopback to NO_PROXY and no_proxy, as parts of a CEL expression. Clients differ in the spelling that they
read, and most prefer the lower case, so a spelling that is absent gets the value of the other one. A container that reads
one of them from elsewhere (`valueFrom`), or that may do so (`envFrom`), keeps it: a new value would hide that one.
*/}}
{{- define "vecho.noProxy" -}}
{{- $own := "127.0.0.1,localhost" -}}
{{- $path := `"/spec/containers/" + string(object.spec.containers.map(d, d.name).indexOf(c.name)) + "/env/` -}}
{{- $names := `["NO_PROXY", "no_proxy"]` -}}
{{- range list "NO_PROXY" "no_proxy" }}
{{- $other := eq . "NO_PROXY" | ternary "no_proxy" "NO_PROXY" }}
+ object.spec.containers.filter(c, !has(c.envFrom) && (!has(c.env) || !c.env.exists(e, e.name in {{ $names }}))).map(c, JSONPatch{
  op: "add",
  path: {{ $path }}-",
  value: {"name": {{ toJson . }}, "value": {{ toJson $own }}}
})
+ object.spec.containers.filter(c, has(c.env) && c.env.exists_one(e, e.name == {{ toJson . }})
    && !c.env.exists(e, e.name == {{ toJson . }} && (has(e.valueFrom) || has(e.value) && (e.value == "*" || e.value.contains("127.0.0.1"))))).map(c, JSONPatch{
  op: "add",
  path: {{ $path }}" + string(c.env.map(e, e.name).indexOf({{ toJson . }})) + "/value",
  value: c.env.filter(e, e.name == {{ toJson . }}).map(e, has(e.value) && e.value != "" ? e.value + ",{{ $own }}" : {{ toJson $own }})[0]
})
+ object.spec.containers.filter(c, !has(c.envFrom) && has(c.env) && !c.env.exists(e, e.name == {{ toJson . }})
    && c.env.exists_one(e, e.name == {{ toJson $other }} && !has(e.valueFrom))).map(c, JSONPatch{
  op: "add",
  path: {{ $path }}-",
  value: {
    "name": {{ toJson . }},
    "value": c.env.filter(e, e.name == {{ toJson $other }}).map(e, !has(e.value) || e.value == "" ? {{ toJson $own }}
      : e.value == "*" || e.value.contains("127.0.0.1") ? e.value : e.value + ",{{ $own }}")[0]
  }
})
{{- end }}
{{- end -}}
