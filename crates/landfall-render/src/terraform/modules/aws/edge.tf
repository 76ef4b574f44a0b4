variable "name" {
  type        = string
  description = "What the names of everything at the edge begin with."
}

variable "hosts" {
  type        = list(string)
  description = "The names under which users reach the platform."
}

variable "zone" {
  type        = string
  description = "The DNS zone that the names are in."
}

variable "origin" {
  type        = string
  description = "The name of the load balancer of the cluster's ingress; empty until it is there."
  default     = ""
}

variable "cdn" {
  type        = bool
  description = "Whether a content delivery network stands in front."
}

variable "waf" {
  type        = bool
  description = "Whether a web application firewall looks at requests."
}

variable "rate_limit" {
  type        = number
  description = "How many requests one address may make in five minutes."
  default     = 2000
}

locals {
  # CloudFront takes its firewall and its certificate from one region, whatever the origin's is.
  region = var.cdn ? "us-east-1" : null
}

data "aws_route53_zone" "this" {
  name = var.zone
}

resource "aws_acm_certificate" "this" {
  region                    = local.region
  domain_name               = var.hosts[0]
  subject_alternative_names = slice(var.hosts, 1, length(var.hosts))
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = { for option in aws_acm_certificate.this.domain_validation_options : option.domain_name => option }
  zone_id  = data.aws_route53_zone.this.zone_id
  name     = each.value.resource_record_name
  type     = each.value.resource_record_type
  records  = [each.value.resource_record_value]
  ttl      = 300
}

resource "aws_acm_certificate_validation" "this" {
  region                  = local.region
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

resource "aws_wafv2_web_acl" "this" {
  # checkov:skip=CKV2_AWS_31: Sampled requests and metrics are kept; whole requests carry personal data.
  count       = var.waf ? 1 : 0
  region      = local.region
  name        = var.name
  description = "What may reach the platform"
  scope       = var.cdn ? "CLOUDFRONT" : "REGIONAL"

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = ["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesSQLiRuleSet"]

    content {
      name     = rule.value
      priority = rule.key

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value
        }
      }

      visibility_config {
        metric_name                = rule.value
        cloudwatch_metrics_enabled = true
        sampled_requests_enabled   = true
      }
    }
  }

  rule {
    name     = "rate"
    priority = 10

    action {
      block {}
    }

    statement {
      rate_based_statement {
        limit              = var.rate_limit
        aggregate_key_type = "IP"
      }
    }

    visibility_config {
      metric_name                = "rate"
      cloudwatch_metrics_enabled = true
      sampled_requests_enabled   = true
    }
  }

  visibility_config {
    metric_name                = var.name
    cloudwatch_metrics_enabled = true
    sampled_requests_enabled   = true
  }
}

resource "aws_cloudfront_distribution" "this" {
  # checkov:skip=CKV_AWS_86: Accesses are logged by the ingress, with the retention that the file declares.
  # checkov:skip=CKV_AWS_305: The origin serves `/` itself.
  # checkov:skip=CKV_AWS_310: A second origin comes with the standby region, by DNS.
  # checkov:skip=CKV_AWS_374: The file restricts no countries of users.
  # checkov:skip=CKV2_AWS_32: The services set their own headers.
  # checkov:skip=CKV2_AWS_47: The firewall is there when the file declares it.
  # checkov:skip=CKV_AWS_68: The firewall is there when the file declares it.
  count           = var.cdn && var.origin != "" ? 1 : 0
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3"
  aliases         = var.hosts
  web_acl_id      = var.waf ? aws_wafv2_web_acl.this[0].arn : null

  origin {
    origin_id   = "ingress"
    domain_name = var.origin

    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
    }
  }

  default_cache_behavior {
    target_origin_id       = "ingress"
    viewer_protocol_policy = "redirect-to-https"
    allowed_methods        = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    cached_methods         = ["GET", "HEAD"]
    compress               = true

    # The managed policies: the origin decides by its headers what is kept, and gets whatever the user sent.
    cache_policy_id          = "83da9c7e-98b4-4e11-a168-04f0df8e2c65"
    origin_request_policy_id = "216adef6-5c7f-47e4-b989-5492eafa07d3"
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    acm_certificate_arn      = aws_acm_certificate_validation.this.certificate_arn
    minimum_protocol_version = "TLSv1.2_2021"
    ssl_support_method       = "sni-only"
  }
}

resource "aws_route53_record" "host" {
  for_each = var.origin == "" ? [] : toset(var.hosts)
  zone_id  = data.aws_route53_zone.this.zone_id
  name     = each.key
  type     = "CNAME"
  ttl      = 60
  records  = [var.cdn ? aws_cloudfront_distribution.this[0].domain_name : var.origin]
}

output "certificate_arn" {
  description = "The certificate of the names."
  value       = aws_acm_certificate_validation.this.certificate_arn
}

output "firewall_arn" {
  description = "The firewall; a load balancer's controller binds it by annotation. Null without one."
  value       = one(aws_wafv2_web_acl.this[*].arn)
}
