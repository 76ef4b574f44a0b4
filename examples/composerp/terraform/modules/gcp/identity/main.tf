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
