variable "name" {
  type        = string
  description = "The name of the account."
}

variable "project" {
  type        = string
  description = "The project."
}

variable "namespace" {
  type        = string
  description = "The namespace of the service account."
}

variable "service_account" {
  type        = string
  description = "The service account of the cluster that acts as the account."
}

variable "buckets" {
  type        = list(string)
  description = "The buckets that it may read and write."
  default     = []
}

variable "secret_ids" {
  type        = list(string)
  description = "The secrets that it may read."
  default     = []
}

resource "google_service_account" "this" {
  account_id   = substr(var.name, 0, 30)
  display_name = "Service account ${var.service_account} of ${var.namespace}"
}

resource "google_service_account_iam_member" "workload" {
  service_account_id = google_service_account.this.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.namespace}/${var.service_account}]"
}

resource "google_storage_bucket_iam_member" "this" {
  count  = length(var.buckets)
  bucket = var.buckets[count.index]
  role   = "roles/storage.objectUser"
  member = google_service_account.this.member
}

resource "google_secret_manager_secret_iam_member" "this" {
  count     = length(var.secret_ids)
  secret_id = var.secret_ids[count.index]
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this.member
}

output "annotation" {
  description = "What the service account says to act as the account."
  value       = { "iam.gke.io/gcp-service-account" = google_service_account.this.email }
}
