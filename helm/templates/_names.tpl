{{- /* The parts of names, labels and pods that every program shares. */ -}}

{{- define "byline.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What selects the pods of one program: (list $ "gateway"). */ -}}
{{- define "byline.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "byline.labels" -}}
{{ include "byline.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | quote }}
{{- end -}}

{{- define "byline.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{- /* Every engine's own address. */ -}}
{{- define "byline.engineUrls" -}}
{{- $urls := list -}}
{{- $name := printf "%s-engine" (include "byline.name" .) -}}
{{- range until (int .Values.engine.replicas) -}}
{{- $urls = append $urls (printf "http://%s-%d.%ss:8081" $name . $name) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{- define "byline.homeClaim" -}}
{{- .Values.home.existingClaim | default (printf "%s-home" (include "byline.name" .)) -}}
{{- end -}}

{{- /* What every pod has: (list $ "gateway" user), or (list $ "notary" user group) where they differ.
       Service links are off: they would put BYLINE_GATEWAY_PORT and its like, meant for another
       purpose, into the environment that the programs read. */ -}}
{{- define "byline.pod" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
serviceAccountName: {{ include "byline.name" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 2 }}
  runAsGroup: {{ last . }}
  fsGroup: {{ last . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "byline.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* More settings of one program, in the order of their names. */ -}}
{{- define "byline.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- /* The ledger's address under the name given: (list $ "BYLINE_GATEWAY_REDIS_URL"). */ -}}
{{- define "byline.ledgerEnv" -}}
{{- $root := index . 0 -}}
{{- $secret := $root.Values.ledgerSecret -}}
{{- if $root.Values.redis.enabled -}}
- name: LEDGER_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.passwordKey }}}}
- name: {{ index . 1 }}
  value: redis://:$(LEDGER_PASSWORD)@{{ include "byline.name" $root }}-redis:6379/0
{{- else -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.urlKey }}}}
{{- end -}}
{{- end -}}

{{- /* The archive's address under the name given; it holds a password, so it lies in a Secret. */ -}}
{{- define "byline.archiveEnv" -}}
{{- $secret := (index . 0).Values.archiveSecret -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.urlKey }}}}
{{- end -}}

{{- /* The home folder: everything readable, served token ids writable where (list $ true). */ -}}
{{- define "byline.homeMounts" -}}
- {name: home, mountPath: /var/lib/byline, readOnly: true}
{{- if index . 1 }}
- {name: home, mountPath: /var/lib/byline/artifacts/served, subPath: artifacts/served}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "byline.homeVolumes" -}}
- name: home
  persistentVolumeClaim: {claimName: {{ include "byline.homeClaim" . }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end -}}
