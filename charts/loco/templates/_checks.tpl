{{/*
Combinations that the schema cannot see and that would fail later, less clearly. Each names the key and the remedy. Included
where values are used that could not be used otherwise; renders nothing.
*/}}
{{- define "loco.checks" -}}
{{- if eq .Values.image.tag "latest" }}
{{- fail "image.tag is `latest`: a node that has an old image under this name would keep it; give a version, such as the one `cargo xtask image` prints" }}
{{- end }}
{{- $names := dict }}
{{- $vnis := dict }}
{{- if include "loco.tests" . }}
{{- $_ := set $names "helm-test" "the LAN of tests.enabled" }}
{{- $_ := set $vnis (toString (int .Values.tests.vni)) "tests.vni" }}
{{- end }}
{{- range $i, $lan := .Values.lans }}
{{- $key := printf "lans[%d]" $i }}
{{- if hasKey $names $lan.name }}
{{- fail (printf "%s.name: `%s` is also the name of %s; give each LAN a name of its own" $key $lan.name (get $names $lan.name)) }}
{{- end }}
{{- $_ := set $names $lan.name $key }}
{{- $vni := toString (int $lan.vni) }}
{{- if hasKey $vnis $vni }}
{{- fail (printf "%s.vni: %s is also that of %s, so both would be one segment; give each LAN a vni of its own" $key $vni (get $vnis $vni)) }}
{{- end }}
{{- $_ := set $vnis $vni $key }}
{{- if gt (int $lan.replicas) (int $lan.seats) }}
{{- fail (printf "%s.replicas is %d and %s.seats is %d: a guest without a seat cannot play; raise seats or lower replicas" $key (int $lan.replicas) $key (int $lan.seats)) }}
{{- end }}
{{- if and (eq ($lan.mode | default $.Values.networkMode) "macvlan") (not $.Values.agent.privileged) }}
{{- fail (printf "%s has the mode `macvlan`, and agent.privileged is false: a container opens only the devices it was given, and a guest's port is one that the kernel numbers when it makes it; set agent.privileged to true, or the mode to vxlan" $key) }}
{{- end }}
{{- $bits := int (last (splitList "/" $lan.subnet)) }}
{{- $holds := 1 }}
{{- range until (int (sub 32 $bits)) }}
{{- $holds = mul $holds 2 }}
{{- end }}
{{- if gt (int $lan.seats) (int (sub $holds 3)) }}
{{- fail (printf "%s.seats is %d and %s.subnet (%s) holds %d guests; take a larger subnet, such as %s/24" $key (int $lan.seats) $key $lan.subnet (sub $holds 3) (first (splitList "/" $lan.subnet))) }}
{{- end }}
{{- end }}
{{- $ports := splitList "-" .Values.agent.mediaPorts }}
{{- $first := int (first $ports) }}
{{- $last := int (last $ports) }}
{{- if or (lt $first 1024) (gt $last 65535) (gt $first $last) }}
{{- fail (printf "agent.mediaPorts is `%s`; write FIRST-LAST with 1024 <= FIRST <= LAST <= 65535, such as 14900-14999" .Values.agent.mediaPorts) }}
{{- end }}
{{- range $key, $port := dict "port" .Values.agent.port "vxlanPort" .Values.agent.vxlanPort "switchPort" .Values.agent.switchPort "wireguardPort" .Values.agent.wireguardPort }}
{{- if and (ge (int $port) $first) (le (int $port) $last) }}
{{- fail (printf "agent.%s %d lies in agent.mediaPorts %s; move one of them" $key (int $port) $.Values.agent.mediaPorts) }}
{{- end }}
{{- end }}
{{- if eq (int .Values.agent.vxlanPort) (int .Values.agent.switchPort) }}
{{- fail (printf "agent.vxlanPort and agent.switchPort are both UDP %d; give each a port of its own" (int .Values.agent.vxlanPort)) }}
{{- end }}
{{- if eq .Values.encryption "wireguard" }}
{{- range $key, $port := dict "vxlanPort" .Values.agent.vxlanPort "switchPort" .Values.agent.switchPort }}
{{- if eq (int $port) (int $.Values.agent.wireguardPort) }}
{{- fail (printf "agent.wireguardPort and agent.%s are both UDP %d; give each a port of its own" $key (int $port)) }}
{{- end }}
{{- end }}
{{- range (include "loco.lans" . | fromJson).lans }}
{{- if eq .mode "socket" }}
{{- fail (printf "LAN `%s` has the mode `socket`, which cannot be encrypted; give it the mode `vxlan`, or set encryption to `none`" .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.agent.ipxRelay.enabled }}
{{- $joined := .Values.agent.ipxRelay.lan | default (first .Values.lans).name }}
{{- if not (hasKey $names $joined) }}
{{- fail (printf "agent.ipxRelay.lan: there is no LAN `%s` in lans; give the name of one" $joined) }}
{{- end }}
{{- range (include "loco.lans" . | fromJson).lans }}
{{- if and (eq .name $joined) (ne .mode "vxlan") }}
{{- fail (printf "agent.ipxRelay joins the LAN `%s`, whose mode `%s` carries no relay; give agent.ipxRelay.lan a LAN of mode `vxlan`, or set agent.ipxRelay.enabled to false" .name .mode) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .Values.guest.kind "demo" }}
{{- if or .Values.guest.cdrom .Values.storage.base.file }}
{{- fail "guest.kind is `demo`, which has neither disk nor CD; set guest.kind to `disk`, or guest.cdrom and storage.base.file to \"\"" }}
{{- end }}
{{- else if not (or .Values.storage.base.file .Values.guest.cdrom) }}
{{- fail "guest.kind is `disk`, and there is none; give storage.base.file (its name at the source) or guest.cdrom" }}
{{- end }}
{{- $base := include "loco.baseSource" . }}
{{- $overlay := include "loco.overlaySource" . }}
{{- if and (eq $overlay "hybrid") (eq .Values.guest.kind "demo") }}
{{- fail "storage.mode is `hybrid`, which keeps a second claim for each guest's disk, and guest.kind `demo` has no disk; set storage.mode to `pvc` or guest.kind to `disk`" }}
{{- end }}
{{- if and (eq $base "pvc") (not .Values.storage.base.claimName) }}
{{- fail "the base image is read from a claim (storage.base.source, or storage.mode, is `pvc`), and storage.base.claimName is empty; give its name, or another storage.base.source" }}
{{- end }}
{{- if and (has $base (list "copy" "imageVolume")) (ne .Values.guest.kind "demo") (not .Values.storage.base.image) }}
{{- fail (printf "storage.base.source is `%s`, and storage.base.image is empty; give the data image that holds %s" $base (.Values.storage.base.file | default .Values.guest.cdrom)) }}
{{- end }}
{{- if and (or (eq $base "nfs") (eq $overlay "nfs")) (not (and .Values.storage.nfs.server .Values.storage.nfs.path)) }}
{{- fail (printf "storage.mode is `%s`, which reads from NFS; give storage.nfs.server and storage.nfs.path" .Values.storage.mode) }}
{{- end }}
{{- if and (has $overlay (list "hostPath" "hybrid")) (not .Values.storage.hostPath.shared) (not .Values.storage.hostPath.nodes) }}
{{- fail "guests' disks on the nodes' own directories stay where they are, so each guest must know its node: list the nodes in storage.hostPath.nodes, or set storage.hostPath.shared to true if the directory is the same on all nodes (or there is one node)" }}
{{- end }}
{{- if and .Values.gateway.ingress.enabled .Values.gateway.ingress.tls.enabled (not .Values.gateway.ingress.tls.secretName) }}
{{- fail "gateway.ingress.tls.enabled needs the Secret with the certificate; give gateway.ingress.tls.secretName" }}
{{- end }}
{{- if and .Values.gateway.httpRoute.enabled (not .Values.gateway.httpRoute.parentRefs) }}
{{- fail "gateway.httpRoute.enabled needs a Gateway that takes the route; give gateway.httpRoute.parentRefs, such as [{name: web}]" }}
{{- end }}
{{- if .Values.gateway.httpRoute.enabled }}
{{- include "loco.needs" (dict "root" $ "key" "gateway.httpRoute.enabled" "kind" "gateway.networking.k8s.io/v1/HTTPRoute" "project" "the Gateway API") }}
{{- end }}
{{- if .Values.monitoring.serviceMonitor.enabled }}
{{- include "loco.needs" (dict "root" $ "key" "monitoring.serviceMonitor.enabled" "kind" "monitoring.coreos.com/v1/ServiceMonitor" "project" "the Prometheus operator") }}
{{- end }}
{{- if .Values.monitoring.prometheusRule.enabled }}
{{- include "loco.needs" (dict "root" $ "key" "monitoring.prometheusRule.enabled" "kind" "monitoring.coreos.com/v1/PrometheusRule" "project" "the Prometheus operator") }}
{{- end }}
{{- end -}}
