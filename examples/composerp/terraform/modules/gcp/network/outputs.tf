output "network_id" {
  description = "The network."
  value       = google_service_networking_connection.data.network
}

output "subnet_id" {
  description = "The private subnet."
  value       = google_compute_subnetwork.private.id
}

output "kms_key_id" {
  description = "The key that encrypts data."
  value       = google_kms_crypto_key.this.id
  depends_on  = [google_kms_crypto_key_iam_member.services]
}

output "cidr" {
  description = "The addresses of the private subnet."
  value       = google_compute_subnetwork.private.ip_cidr_range
}
