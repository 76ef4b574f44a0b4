output "annotation" {
  description = "What the service account says to act as the account."
  value       = { "iam.gke.io/gcp-service-account" = google_service_account.this.email }
}
