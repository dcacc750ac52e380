{{/*
Names are fixed, as agents and gateway look for each other by them: one release in a namespace.
*/}}

{{/* Labels of an object. Call with (dict "root" $ "component" "…"). */}}
{{- define "loco.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "loco.podLabels" . }}
{{- end -}}

{{/* Labels of pods: none that changes with the chart's version, which would roll pods that are the same. */}}
{{- define "loco.podLabels" -}}
app.kubernetes.io/part-of: loco
{{ include "loco.selector" . }}
{{- end -}}

{{- define "loco.selector" -}}
app.kubernetes.io/name: loco
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Reference of an image. Call with (dict "root" $ "name" "gateway" "override" .Values.gateway.image). */}}
{{- define "loco.image" -}}
{{- if .override -}}
{{- .override -}}
{{- else -}}
{{- printf "%s/loco/%s:%s" (trimSuffix "/" .root.Values.image.registry) .name (.root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "loco.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A container that may do nothing but run: what Pod Security "restricted" asks for, and a read-only root. */}}
{{- define "loco.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "loco.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Name of the StatefulSet of the LAN with this index. Call with (dict "index" $i "lan" $lan). */}}
{{- define "loco.statefulSet" -}}
{{- if eq (int .index) 0 -}}instance{{- else -}}instance-{{ .lan.name }}{{- end -}}
{{- end -}}

{{/* Whether there is a `helm test`: its peers speak by a tap, and by nothing else. Empty: no. */}}
{{- define "loco.tests" -}}
{{- if and .Values.tests.enabled (eq .Values.networkMode "vxlan") -}}yes{{- end -}}
{{- end -}}

{{/* The file of LANs that agents and gateway follow. */}}
{{- define "loco.lans" -}}
{{- $lans := list -}}
{{- range .Values.lans -}}
{{- $lan := dict "name" .name "vni" (int .vni) "mode" (.mode | default $.Values.networkMode) "subnet" .subnet "seats" (int .seats) -}}
{{- $guard := dict -}}
{{- if .guard -}}
{{- if hasKey .guard "ownSource" -}}{{- $_ := set $guard "own_source" .guard.ownSource -}}{{- end -}}
{{- if hasKey .guard "noServers" -}}{{- $_ := set $guard "no_servers" .guard.noServers -}}{{- end -}}
{{- if hasKey .guard "broadcastsPerSecond" -}}
{{- /* A number that is read from a file is a fraction to Helm; null is none. */ -}}
{{- $rate := .guard.broadcastsPerSecond -}}
{{- if not (kindIs "invalid" $rate) -}}{{- $rate = int $rate -}}{{- end -}}
{{- $_ := set $guard "broadcasts_per_second" $rate -}}
{{- end -}}
{{- end -}}
{{- if $guard -}}{{- $_ := set $lan "guard" $guard -}}{{- end -}}
{{- $lans = append $lans $lan -}}
{{- end -}}
{{- if include "loco.tests" . -}}
{{- $lans = append $lans (dict "name" "helm-test" "vni" (int .Values.tests.vni) "mode" .Values.networkMode "subnet" "10.97.255.0/28" "seats" 2) -}}
{{- end -}}
{{- dict "version" 1 "lans" $lans | toPrettyJson -}}
{{- end -}}

{{/*
What the agents may do on their nodes: "privileged"; "split", the capabilities alone, with a privileged init container; "none",
where no LAN is made of the kernel's devices.
*/}}
{{- define "loco.rights" -}}
{{- $kernel := false -}}
{{- range (include "loco.lans" . | fromJson).lans -}}
{{- if not (has .mode (list "socket" "user")) -}}{{- $kernel = true -}}{{- end -}}
{{- end -}}
{{- if .Values.agent.privileged -}}privileged{{- else if $kernel -}}split{{- else -}}none{{- end -}}
{{- end -}}

{{- define "loco.tokensSecret" -}}
{{- .Values.tokens.existingSecret | default "loco-tokens" -}}
{{- end -}}

{{/*
The chart's own tokens, as a JSON object: those of the Secret that is there, else new ones. Made once in a rendering, as the
Secret and the pods' checksums must agree.
*/}}
{{- define "loco.tokens" -}}
{{- if not (hasKey .Values.tokens "generated") -}}
{{- $tokens := dict -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace "loco-tokens").data | default dict -}}
{{- if and $kept.agent $kept.users $kept.scrape -}}
{{- $tokens = dict "agent" $kept.agent "users" $kept.users "scrape" $kept.scrape -}}
{{- else -}}
{{- $scrape := randAlphaNum 40 -}}
{{- $users := printf "admin %s\nplay %s\nview %s\nview %s\n" (randAlphaNum 40) (randAlphaNum 40) (randAlphaNum 40) $scrape -}}
{{- $tokens = dict "agent" (randAlphaNum 40 | b64enc) "users" ($users | b64enc) "scrape" ($scrape | b64enc) -}}
{{- end -}}
{{- $_ := set .Values.tokens "generated" $tokens -}}
{{- end -}}
{{- get .Values.tokens "generated" | toJson -}}
{{- end -}}

{{/*
Pods read tokens at their start. A Secret of the user's is read if there is a cluster to read it from, so that
`helm upgrade` after a change of it restarts what must be restarted.
*/}}
{{- define "loco.tokensChecksum" -}}
{{- if .Values.tokens.existingSecret -}}
{{- (lookup "v1" "Secret" .Release.Namespace .Values.tokens.existingSecret).data | toJson | sha256sum -}}
{{- else -}}
{{- include "loco.tokens" . | sha256sum -}}
{{- end -}}
{{- end -}}

{{- define "loco.baseSource" -}}
{{- if .Values.storage.base.source -}}
{{- .Values.storage.base.source -}}
{{- else if eq .Values.guest.kind "demo" -}}
copy
{{- else if eq .Values.storage.mode "hybrid" -}}
hostPath
{{- else -}}
{{- .Values.storage.mode -}}
{{- end -}}
{{- end -}}

{{/* "" (emptyDir), "pvc", "hostPath", "nfs" or "hybrid". */}}
{{- define "loco.overlaySource" -}}
{{- if eq .Values.storage.lifetime "persistent" -}}
{{- .Values.storage.mode -}}
{{- end -}}
{{- end -}}

{{- define "loco.baseFile" -}}
{{- if eq .Values.guest.kind "demo" -}}demo-guest.elf{{- else -}}{{ .Values.storage.base.file }}{{- end -}}
{{- end -}}

{{/* An object of a kind that another project defines: refused in words where the cluster does not know it. */}}
{{- define "loco.needs" -}}
{{- if not (or .root.Values.trustCRDs (.root.Capabilities.APIVersions.Has .kind)) -}}
{{- fail (printf "%s needs the kind %s, which this cluster does not know: install %s, set %s to false, or, without a cluster to ask, set trustCRDs to true" .key .kind .project .key) -}}
{{- end -}}
{{- end -}}
