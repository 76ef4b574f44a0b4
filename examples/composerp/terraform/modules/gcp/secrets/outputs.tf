output "ids" {
  description = "The secrets."
  value       = values(google_secret_manager_secret.this)[*].secret_id
}
