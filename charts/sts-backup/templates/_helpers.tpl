{{- define "sts-backup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sts-backup.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "sts-backup.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sts-backup.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sts-backup.selector" -}}
app.kubernetes.io/component: watcher
app.kubernetes.io/name: {{ include "sts-backup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sts-backup.labels" -}}
app.kubernetes.io/name: {{ include "sts-backup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sts-backup.account" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sts-backup.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name an account, or let serviceAccount.create make one" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sts-backup.runner" -}}
{{- if .Values.runner.serviceAccount.create }}
{{- default (printf "%s-runner" (include "sts-backup.fullname" .)) .Values.runner.serviceAccount.name }}
{{- else }}
{{- required "runner.serviceAccount.name: name an account, or let runner.serviceAccount.create make one" .Values.runner.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sts-backup.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{/* The rules of a generated role: (dict "files" .Files "kind" KIND "name" NAME). */}}
{{- define "sts-backup.rules" -}}
{{- range splitList "---\n" (.files.Get "files/rbac.yaml") }}
{{- $role := fromYaml . }}
{{- if and (eq (default "" $role.kind) $.kind) (eq $role.metadata.name $.name) }}
{{- toYaml $role.rules }}
{{- end }}
{{- end }}
{{- end }}

{{/* A binding: (dict "root" . "kind" KIND "role" ROLE-KIND "name" NAME "namespace" NS "account" ACCOUNT). */}}
{{- define "sts-backup.binding" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "sts-backup.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .role }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* A role with generated rules: as above, and "from" the generated role, of kind "source". */}}
{{- define "sts-backup.role" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "sts-backup.labels" .root | nindent 4 }}
rules:
  {{- include "sts-backup.rules" (dict "files" .root.Files "kind" .source "name" .from) | nindent 2 }}
{{- end }}
